# SPDX-License-Identifier: Apache-2.0
"""Secrets at rest: AES-256-GCM under a key of 32 bytes that the settings name a file for.

Associated data binds a sealed secret to its place (key id and organisation), so that it cannot be moved to
another tenant. Nothing here may log, print or put into an error what it opens.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
"""Random; the birthday bound of 2**32 seals under one key is far beyond the keys of any deployment."""
_VERSION = b"\x01"
_TAG_BYTES = 16


class SealBroken(Exception):
    """The sealed secret does not open: another master key, another place, or altered bytes."""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


def seal(master_key: bytes, plaintext: bytes, *, associated: bytes) -> bytes:
    """Seal a secret to its place.

    Args:
        master_key: 32 bytes.
        plaintext: the secret.
        associated: names the place; the same bytes are needed to open.

    Returns:
        Version byte, nonce, ciphertext with tag.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    return _VERSION + nonce + AESGCM(master_key).encrypt(nonce, plaintext, _VERSION + associated)


def open_sealed(master_key: bytes, sealed: bytes, *, associated: bytes) -> bytes:
    """Open what `seal` made.

    Raises:
        SealBroken: see there.
    """
    head = len(_VERSION) + NONCE_BYTES
    if len(sealed) < head + _TAG_BYTES or sealed[: len(_VERSION)] != _VERSION:
        raise SealBroken
    try:
        return AESGCM(master_key).decrypt(sealed[len(_VERSION) : head], sealed[head:], _VERSION + associated)
    except InvalidTag:
        raise SealBroken from None
