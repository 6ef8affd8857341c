# SPDX-License-Identifier: Apache-2.0
"""Named places where the process can be made to die, to prove that dying there is harmless.

`crash_point("settle.before_commit")` does nothing in production. A test arms a point with
`CONFERRAL_CRASH_AT=<point>[:<nth>][,<task>]` and the process kills itself with SIGKILL when
it passes there for the nth time (while it runs that task, if one is named).

An absolute path instead names a folder, so that points of running processes can be armed: a file
called `<point>[,<task or run id>]:<nth>` counts down with every passage of any process, and the
last one dies. Its name then ends in `:0@<pid>@<nanoseconds since the epoch>`: it happens only once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT_VARIABLE = "CONFERRAL_CRASH_AT"

current_task: threading.local = threading.local()


@dataclass
class _Armed:
    point: str
    nth: int
    task: str | None
    die: Callable[[], None]
    passed: int = 0

    def pass_by(self, name: str) -> None:
        """Die when this is the point, the task and the passage."""
        if self.point != name or self.task not in (None, _task()):
            return
        self.passed += 1
        if self.passed == self.nth:
            self.die()


@dataclass
class _Folder:
    path: Path
    die: Callable[[], None]

    def pass_by(self, name: str) -> None:
        """Count down every file of this point; who renames a file to its end dies."""
        dies = False
        # The nearest first: "2" becomes "1" only after "1" has been used up.
        for left, place in sorted(self._armed(name)):
            mark = f"@{os.getpid()}@{time.time_ns()}" if left <= 1 else ""
            try:
                (self.path / f"{place}:{left}").rename(self.path / f"{place}:{left - 1}{mark}")
            except FileNotFoundError:
                continue  # another process passed at the same moment
            dies = dies or left <= 1
        if dies:
            self.die()

    def _armed(self, name: str) -> Iterator[tuple[int, str]]:
        places = {name, f"{name},{_task()}", f"{name},{getattr(current_task, 'run_id', None)}"}
        for entry in self.path.iterdir() if self.path.is_dir() else ():
            place, _, left = entry.name.partition(":")
            if place in places and left.isdigit():
                yield int(left), place


def _task() -> str | None:
    return getattr(current_task, "name", None)


def _kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _parse(text: str, die: Callable[[], None] = _kill_own_process) -> _Armed | _Folder | None:
    if not text:
        return None
    if text.startswith("/"):
        return _Folder(Path(text), die)
    place, _, task = text.partition(",")
    point, _, nth = place.partition(":")
    return _Armed(point=point, nth=int(nth or 1), task=task or None, die=die)


_armed = _parse(os.environ.get(ENVIRONMENT_VARIABLE, ""))


def crash_point(name: str) -> None:
    """Die here if this point is armed; otherwise do nothing."""
    if _armed is not None:
        _armed.pass_by(name)


def arm(text: str | None, die: Callable[[], None] = _kill_own_process) -> None:
    """Arm one point in this process, or none; for tests (`testing.crash_at` raises instead)."""
    global _armed  # noqa: PLW0603 - one process, one armed point, by definition
    _armed = _parse(text or "", die)
