# SPDX-License-Identifier: Apache-2.0
"""Named places where the process can be made to die, to prove that dying there is harmless.

`crash_point("settle.before_commit")` does nothing in production. A test arms a point with
`CONFERRAL_CRASH_AT=<point>[:<nth>][,<task>]` and the process kills itself with SIGKILL when
it passes there for the nth time (while it runs that task, if one is named).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

ENVIRONMENT_VARIABLE = "CONFERRAL_CRASH_AT"

current_task: threading.local = threading.local()


@dataclass
class _Armed:
    point: str
    nth: int
    task: str | None
    die: Callable[[], None]
    passed: int = 0


def _kill_own_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _parse(text: str, die: Callable[[], None] = _kill_own_process) -> _Armed | None:
    if not text:
        return None
    place, _, task = text.partition(",")
    point, _, nth = place.partition(":")
    return _Armed(point=point, nth=int(nth or 1), task=task or None, die=die)


_armed = _parse(os.environ.get(ENVIRONMENT_VARIABLE, ""))


def crash_point(name: str) -> None:
    """Die here if this point is armed; otherwise do nothing."""
    if _armed is None or _armed.point != name:
        return
    if _armed.task is not None and getattr(current_task, "name", None) != _armed.task:
        return
    _armed.passed += 1
    if _armed.passed == _armed.nth:
        _armed.die()


def arm(text: str | None, die: Callable[[], None] = _kill_own_process) -> None:
    """Arm one point in this process, or none; for tests (`testing.crash_at` raises instead)."""
    global _armed  # noqa: PLW0603 - one process, one armed point, by definition
    _armed = _parse(text or "", die)
