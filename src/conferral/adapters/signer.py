# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys of organisations and logs: made, sealed, opened, used.

Only issuance and anchoring workers hold the master key; this room is built there, after fork. A private key
lives in memory of those processes and sealed in the database, nowhere else: never in Redis, arguments, logs.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from conferral.adapters.sealing import SealBroken, open_sealed, seal
from conferral.reliable.errors import Retryable

MAX_OPEN_KEYS = 64
"""Opened keys kept in memory: a batch belongs to one organisation, so a few dozen serve every worker."""


def generate_key() -> tuple[bytes, bytes]:
    """Make an Ed25519 key; return its private and its public 32 bytes."""
    private = Ed25519PrivateKey.generate()
    return (
        private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()),
        private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
    )


class Signer:
    """One opened key: signs, and says which public key it signs with."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """Sign with Ed25519 (RFC 8032): deterministic, 64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Signer(public_key={self.public_key.hex()})"


class KeyRing:
    """Opens sealed keys under the master key and keeps the last used ones open. Safe among threads."""

    def __init__(self, master_key: bytes) -> None:
        self._master_key = master_key
        self._open: OrderedDict[tuple[str, str, bytes], Signer] = OrderedDict()
        self._lock = threading.Lock()

    def seal(self, key_id: str, organisation_id: str, private: bytes) -> bytes:
        """Seal a private key to its id and its organisation; only there will it open again."""
        return seal(self._master_key, private, associated=_place(key_id, organisation_id))

    def signer(self, key_id: str, organisation_id: str, sealed: bytes) -> Signer:
        """Return the signer of a sealed key.

        Raises:
            Retryable: `signing_key_unavailable`: another master key, another owner, or damaged bytes.
        """
        # The whole sealed text is part of the name: an open key must not answer for bytes that do not open.
        name = (key_id, organisation_id, hashlib.sha256(sealed).digest())
        with self._lock:
            found = self._open.get(name)
            if found is not None:
                self._open.move_to_end(name)
                return found
        try:
            private = open_sealed(self._master_key, sealed, associated=_place(key_id, organisation_id))
            signer = Signer(private)
        except (SealBroken, ValueError):
            raise Retryable(
                "signing_key_unavailable",
                f"The signing key {key_id} does not open under this master key; "
                "check CONFERRAL_MASTER_KEY_FILE.",
            ) from None
        with self._lock:
            self._open[name] = signer
            while len(self._open) > MAX_OPEN_KEYS:
                self._open.popitem(last=False)
        return signer


def _place(key_id: str, organisation_id: str) -> bytes:
    """Name the place of a key unambiguously: lengths keep "a|bc" and "ab|c" apart."""
    parts = (b"signing-key", key_id.encode(), organisation_id.encode())
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)
