# SPDX-License-Identifier: Apache-2.0
"""Which process is meant: a pid alone is reused, a pid with its start time is not.

Used to end what a killed supervisor left behind, never by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Field 22 of /proc/<pid>/stat, counted after the command's closing bracket (proc(5)).
_START_FIELD = 19
_PS_SECONDS = 5


@dataclass(frozen=True)
class Identity:
    """A process: its pid and when it started, in the kernel's own words."""

    pid: int
    started: str

    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return start_time(self.pid) == self.started

    def signal(self, number: int) -> bool:
        """Send a signal to this very process; False when it is gone."""
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def signal_group(self, number: int) -> bool:
        """Send a signal to the group that this process leads; False when it is gone."""
        if not self.is_alive():
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def identify(pid: int) -> Identity | None:
    """Return the identity of a running process, or None."""
    started = start_time(pid)
    return Identity(pid, started) if started else None


def start_time(pid: int) -> str:
    """Return when a process started, as text that is only compared; empty when it is gone."""
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        words = text.rpartition(")")[2].split()
        return "" if words[0] in {"Z", "X"} else words[_START_FIELD]
    done = subprocess.run(  # noqa: S603 -- fixed program and a number
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        timeout=_PS_SECONDS,
        check=False,
    )
    return done.stdout.strip()
