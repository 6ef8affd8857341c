# SPDX-License-Identifier: Apache-2.0
"""A disk that can be filled: a small tmpfs, so that what is full is really full; Linux and root only."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import require

CURE = "run the tests as root on Linux, where tmpfs can be mounted"
PIECE = 4096


@dataclass(frozen=True)
class SmallDisk:
    """A mounted disk of a few megabytes."""

    folder: Path

    def fill(self) -> None:
        """Leave no room at all."""
        with contextlib.suppress(FileExistsError):
            (self.folder / "ballast").touch(exist_ok=False)
        with (self.folder / "ballast").open("ab", buffering=0) as ballast:
            while True:
                try:
                    ballast.write(bytes(PIECE))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def make_room(self) -> None:
        """Give the room back."""
        (self.folder / "ballast").unlink()

    def allow_writing(self, *, allowed: bool) -> None:
        """Mount it again, for writing or read-only."""
        _run("mount", "-o", f"remount,{'rw' if allowed else 'ro'}", str(self.folder))


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 64) -> Iterator[SmallDisk]:
    """Yield a mounted disk; skipped by name where this user may not mount one."""
    require.program("mount", "apt-get install mount")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "conferral-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        require.missing("a small disk cannot be mounted", CURE)
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that is just ending may still hold a file there.
        _run("umount", "--lazy", str(folder))


def _run(*words: str) -> None:
    subprocess.run(words, capture_output=True, check=True)
