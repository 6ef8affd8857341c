# SPDX-License-Identifier: Apache-2.0
"""Key files and generated passwords: made once, mode 0600, never printed, never in a `repr`.

A missing file is made only in the data directory's own `keys` folder. Anywhere else it was put there
by a person, and a new key in its place would make everything it sealed unreadable.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path

from conferral.settings.errors import SettingsError

KEY_BYTES = 32
# Enough for any password file; more is not a password.
MOST_PASSWORD_BYTES = 4096


def read_or_create(path: Path, *, inside: Path) -> bytes:
    """Return the key in `path` (base64 of 32 bytes), made first when it belongs `inside` this folder."""
    if path.parent == inside and not path.exists():
        write_once(path, base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n")
    text = read_secret(path, "the key file", cure=_LOST)
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or len(set(key)) < KEY_BYTES // 4:
        raise SettingsError(
            [f"{path}: must hold base64 of {KEY_BYTES} random bytes; make one with: {_RECIPE}"]
        )
    return key


def read_secret(path: Path, what: str, *, cure: str = "see who owns it") -> str:
    """Return the stripped text of a secret file; refused when everybody on the machine may read it."""
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            raise SettingsError([f"{path}: {what} may be read by everybody; run: chmod 600 {path}"])
        with path.open("rb") as file:
            return file.read(MOST_PASSWORD_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise SettingsError([f"{path}: {what} cannot be read: {reason}; {cure}"]) from error


def read_or_create_password(path: Path) -> str:
    """Return the generated password in `path`, made first when there is none."""
    if not path.exists():
        write_once(path, secrets.token_urlsafe(24) + "\n")
    return read_secret(path, "the password file")


def write_once(path: Path, text: str) -> None:
    """Write a new file of mode 0600 whole or not at all; whoever comes second changes nothing.

    Raises:
        SettingsError: the folder cannot be written.
    """
    try:
        _write_once(path, text)
    except OSError as error:
        reason = f"{path}: cannot be written: {error.strerror}"
        raise SettingsError(
            [f"{reason}; see CONFERRAL_DATA_DIR, who owns it and the room on its disk"]
        ) from error


def _write_once(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would replace: two processes that start at once agree on one key.
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


_LOST = "put it back from your backup: a new key cannot open what the old one sealed"
_RECIPE = "head -c 32 /dev/urandom | base64"
