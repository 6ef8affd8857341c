# SPDX-License-Identifier: Apache-2.0
"""The data directory: its folders exist and nobody else on the machine may look inside."""

from __future__ import annotations

from pathlib import Path

from conferral.settings.errors import SettingsError
from conferral.settings.model import Settings

FOLDERS = ("blobs", "templates", "keys", "redis", "run", "logs")
PRIVATE = 0o700


def prepare(settings: Settings) -> None:
    """Create the data directory and its folders, mode 0700.

    Raises:
        SettingsError: when it cannot be created or written.
    """
    try:
        _private(settings.data_dir)
        for name in FOLDERS:
            _private(settings.data_dir / name)
    except OSError as error:
        reason = f"{error.strerror} ({error.filename})"
        raise SettingsError(
            [f"CONFERRAL_DATA_DIR={str(settings.data_dir)!r} cannot be used: {reason}"]
        ) from error


def _private(path: Path) -> None:
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(PRIVATE)
