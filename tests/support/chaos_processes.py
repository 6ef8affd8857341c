# SPDX-License-Identifier: Apache-2.0
"""The processes of a house: which there are, and killing and freezing them with a record of when.

Only processes below the house's own supervisor are ever touched, by pid.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.freezing import freeze
from support.installation import Installation

PREFORK = ("hp", "lp")


@dataclass(frozen=True)
class Harm:
    """What was done to a process: `killed` at one moment, or `frozen` between two."""

    pid: int
    name: str
    began: float
    ended: float
    kind: str = "killed"


@dataclass
class Processes:
    """The running processes of an installation, by the names of `conferral status`."""

    installation: Installation
    database_url: str
    harms: list[Harm] = field(default_factory=list)

    def mains(self) -> dict[str, int]:
        """Return the main pid of every process that runs now: redis, web, hp, mail, beat and so on."""
        return {
            name: int(str(row["pid"]))
            for name, row in self.installation.status().items()
            if row["pid"] and Path(f"/proc/{row['pid']}").exists()
        }

    def children(self, name: str) -> list[int]:
        """Return the forked children of one (pool children of hp and lp, gunicorn's web workers)."""
        main = self.mains().get(name)
        return children_of(main) if main else []

    def everything(self) -> list[int]:
        """Return the supervisor and all below it."""
        process = self.installation.process
        return [] if process is None else [process.pid, *descendants(process.pid)]

    def kill(self, pid: int, name: str = "") -> float:
        """SIGKILL one process; return when, in seconds since the epoch (0.0: it was gone already)."""
        at = time.time()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return 0.0
        self.harms.append(Harm(pid, name or self.name_of(pid), at, at))
        return at

    def kill_main(self, name: str) -> float:
        """SIGKILL a main process; its supervisor ends the children that it leaves."""
        main = self.mains()[name]
        below = descendants(main)
        at = self.kill(main, name)
        self.harms += [Harm(pid, name, at, at) for pid in below]
        return at

    def kill_everything(self) -> float:
        """Pull the plug: supervisor, Redis and everything else, the supervisor first."""
        pids = self.everything()
        at = time.time()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.harms += [Harm(pid, "all", at, time.time()) for pid in pids]
        assert self.installation.process is not None
        self.installation.process.wait(20)
        return at

    @contextlib.contextmanager
    def frozen(self, *pids: int) -> Iterator[None]:
        """Freeze processes between their transactions (SQLite's one lock), and thaw them at the end."""
        began = time.time()
        freeze(self.database_url, *pids)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self.harms += [Harm(pid, self.name_of(pid), began, time.time(), "frozen") for pid in pids]

    def name_of(self, pid: int) -> str:
        """Return the name of the process that it is, or belongs to."""
        for name, main in self.mains().items():
            if pid == main or pid in descendants(main):
                return name
        return ""


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process."""
    with contextlib.suppress(OSError):
        found: list[int] = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(each) for each in (task / "children").read_text().split()]
        return found
    return []


def descendants(pid: int) -> list[int]:
    """Return everything below a process."""
    found: list[int] = []
    for child in children_of(pid):
        found += [child, *descendants(child)]
    return found


def is_there(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def until(holds: Callable[[], object], seconds: float, why: Callable[[], object] = str) -> float:
    """Wait until something holds, looking twenty times a second; return the seconds it took, or fail."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {why()}"
        time.sleep(0.05)
    return time.monotonic() - began
