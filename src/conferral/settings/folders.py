# SPDX-License-Identifier: Apache-2.0
"""The data directory: its folders exist, can be written, and nobody else may look inside."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from conferral.settings.errors import SettingsError
from conferral.settings.model import Settings

FOLDERS = ("blobs", "templates", "keys", "redis", "run", "logs")
PRIVATE = 0o700
# Enough that a disk without room says so, and nothing on any other.
PROBE_BYTES = 65_536
_CURES = {
    errno.EROFS: "its file system is mounted read-only: mount it for writing, or choose another directory",
    errno.ENOSPC: "make room on its disk, or choose another directory",
    errno.EDQUOT: "this user's quota is used up: make room, or choose another directory",
    errno.EACCES: "run as the user that owns it, or choose another directory",
    errno.EPERM: "run as the user that owns it, or choose another directory",
    errno.EEXIST: "it is a file: choose a directory",
    errno.ENOTDIR: "a part of the path is a file: choose another directory",
}
_OTHER_CURE = "choose a directory that this user may make and write"


def prepare(settings: Settings) -> None:
    """Create the data directory and its folders, mode 0700.

    `conferral up` also tries whether a file can be written; other commands may still look at what is there
    when the disk is full.

    Raises:
        SettingsError: when it cannot be created or written.
    """
    try:
        _private(settings.data_dir)
        for name in FOLDERS:
            _private(settings.data_dir / name)
        if settings.role == "up":
            _try_to_write(settings.run_dir)
    except OSError as error:
        reason = f"{error.strerror} ({error.filename or settings.run_dir})"
        cure = _CURES.get(error.errno or 0, _OTHER_CURE)
        raise SettingsError(
            [f"CONFERRAL_DATA_DIR={str(settings.data_dir)!r} cannot be used: {reason}; {cure}"]
        ) from error


def _try_to_write(folder: Path) -> None:
    probe = folder / f".probe-{secrets.token_hex(4)}"
    try:
        with probe.open("xb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def _private(path: Path) -> None:
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(PRIVATE)
