# SPDX-License-Identifier: Apache-2.0
"""What a running `conferral up` leaves for other shells of the same data directory.

`run/environment.json` (0600) holds the CONFERRAL_ variables its processes run with, the address of
its own Redis among them. It counts only while `run/up.lock` is held: a file left by a crash is old news.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "environment.json"
LOCK_NAME = "up.lock"
# The file holds a few dozen short variables.
_MOST_BYTES = 65_536


def environment(data_dir: Path) -> dict[str, str]:
    """Return the variables of the running installation, or nothing when none runs."""
    if not is_running(data_dir):
        return {}
    try:
        with (data_dir / "run" / FILE_NAME).open("rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def is_running(data_dir: Path) -> bool:
    """Whether a `conferral up` holds this data directory."""
    try:
        descriptor = os.open(data_dir / "run" / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        # Closing gives a lock back that was only tried.
        os.close(descriptor)
    return False


def publish(data_dir: Path, variables: Mapping[str, str]) -> None:
    """Write the variables for other shells, whole or not at all."""
    path = data_dir / "run" / FILE_NAME
    draft = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dict(variables), file, indent=1)
    draft.replace(path)
