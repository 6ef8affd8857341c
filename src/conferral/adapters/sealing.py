# SPDX-License-Identifier: Apache-2.0
"""Secrets at rest: AES-256-GCM under a master key from a file that only its owner can read.

Associated data binds a sealed secret to its place (key id and organisation), so that it cannot be moved to
another tenant. Nothing here may log, print or put into an error what it opens.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
"""Random; the birthday bound of 2**32 seals under one key is far beyond the keys of any deployment."""
_VERSION = b"\x01"
_TAG_BYTES = 16


class SealBroken(Exception):
    """The sealed secret does not open: another master key, another place, or altered bytes."""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


class KeyFileRefused(Exception):
    """The key file cannot be used; the message names the file and what to do."""


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


def read_or_create_key_file(path: Path) -> bytes:
    """Return the 32 bytes of a key file, created on first use with mode 0600.

    Two processes that start together agree on one key: the file appears whole or not at all.

    Raises:
        KeyFileRefused: readable by others, not a regular file, or not 32 bytes long.
    """
    try:
        return read_key_file(path)
    except FileNotFoundError:
        _create(path)
        return read_key_file(path)


def read_key_file(path: Path) -> bytes:
    """Return the 32 bytes of an existing key file.

    Raises:
        FileNotFoundError: there is none.
        KeyFileRefused: as `read_or_create_key_file`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileRefused(f"{path} cannot be read: {error.strerror}") from None
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise KeyFileRefused(f"{path} is not a regular file")
        if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyFileRefused(
                f"{path} can be read by others (mode {stat.S_IMODE(about.st_mode):04o}); "
                f"run: chmod 600 {path}"
            )
        key = os.read(descriptor, KEY_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(key) != KEY_BYTES:
        raise KeyFileRefused(f"{path} does not hold a key of {KEY_BYTES} bytes; restore it from your backup")
    return key


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link fails where a rename would replace the key that another process has just made.
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
