# SPDX-License-Identifier: Apache-2.0
"""How long a process that ended waits for its restart: longer when it fails, not when it was killed."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conferral.cli.child import LONGEST_PAUSE_SECONDS, Child, Patience, Spec
from conferral.cli.output import Output

SOON = 15.0


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """Yield a process that is ready at once and works until it is killed; its clock is the test's."""
    output = Output(tmp_path, io.StringIO(), colour=False)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    found = Child(Spec("child", command, dict(os.environ), Patience(kill_after=5)), output)
    yield found
    found.kill()
    output.close()


def pause_after(child: Child, now: float, *, worked: float) -> float:
    """Start the process, let it work so long, kill it; return how long it is to wait."""
    child.start(now)
    assert child.notice_ready(now)
    assert child.identity is not None
    os.kill(child.identity.pid, signal.SIGKILL)
    deadline = time.monotonic() + SOON
    while not child.has_ended(now + worked):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return child.due_at - (now + worked)


def test_what_fails_soon_after_its_start_waits_longer_each_time(child: Child) -> None:
    """A broken process costs the machine little."""
    pauses = [pause_after(child, 100.0 * number, worked=0.5) for number in range(7)]
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]


def test_what_worked_longer_than_it_is_to_wait_comes_back_at_once(child: Child) -> None:
    """Killed again and again, by whomever, it works most of the time."""
    assert {pause_after(child, 100.0 * number, worked=10.0) for number in range(8)} == {1.0}
    pauses = [pause_after(child, 1000 + 100.0 * number, worked=5.0) for number in range(6)]
    assert max(pauses) <= 4.0
