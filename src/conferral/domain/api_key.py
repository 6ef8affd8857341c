# SPDX-License-Identifier: Apache-2.0
"""API keys: `conferral_(live|test)_<8 handle>_<43 secret>_<6 checksum>`, all base 62.

The checksum rejects typing errors before any query; the handle finds the row; only a salted
digest of the secret is stored.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Final

from conferral.domain.credential import Mode

SCOPES: Final = (
    "credentials:read", "credentials:write", "batches:read", "batches:write", "templates:read",
    "templates:write", "webhooks:read", "webhooks:write", "audit:read", "ops:read", "ops:write", "admin",
)  # fmt: skip
HANDLE: Final = 8
SECRET: Final = 43  # base 62 digits of 256 bits
CHECKSUM: Final = 6
PATTERN: Final = re.compile(r"conferral_(live|test)_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A key that at least has no typing error."""

    mode: Mode
    handle: str
    secret: str

    @property
    def text(self) -> str:
        """Return the whole key: shown once, never stored."""
        body = f"conferral_{self.mode}_{self.handle}_{self.secret}"
        return f"{body}_{_checksum(body)}"

    def digest(self, pepper: bytes) -> bytes:
        """Return what is stored: SHA-256(secret ‖ pepper)."""
        return hashlib.sha256(self.secret.encode() + pepper).digest()

    def __repr__(self) -> str:
        return f"ParsedKey({self.mode}, {self.handle})"


def make(mode: Mode, random: bytes) -> ParsedKey:
    """Make a key from 40 random bytes: 8 for the handle, 32 for the secret."""
    if len(random) != 40:  # noqa: PLR2004 - see above
        raise ValueError("an API key takes 40 random bytes")
    return ParsedKey(mode, _base62(random[:8], HANDLE), _base62(random[8:], SECRET))


def parse(text: str) -> ParsedKey | None:
    """Return the parts of a key, or None for anything that is not exactly one."""
    matched = PATTERN.fullmatch(text)
    if matched is None:
        return None
    mode, handle, secret, checksum = matched.groups()
    if _checksum(text.rpartition("_")[0]) != checksum:
        return None
    return ParsedKey("live" if mode == "live" else "test", handle, secret)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()).to_bytes(4, "big"), CHECKSUM)


def _base62(data: bytes, width: int) -> str:
    value = int.from_bytes(data, "big") % 62**width
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
