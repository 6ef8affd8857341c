# SPDX-License-Identifier: Apache-2.0
"""Wait until a run that was promised has ended, say how, and return the exit code of that."""

from __future__ import annotations

import time

from conferral.cli import showing, tasks
from conferral.cli.main import FAILED
from conferral.cli.progress import LOOK_SECONDS, STILL_RUNNING
from conferral.reliable import status
from conferral.reliable.status import RunStatus
from conferral.services.runtime import Runtime


def until_ended(rt: Runtime, run_id: str, timeout: float) -> RunStatus | None:
    """Return a run's status when it has ended, or as it is after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        with rt.database.snapshot() as session:
            found = status.status_of(session, run_id)
        if found is None or found.state in tasks.FINAL or time.monotonic() >= deadline:
            return found
        time.sleep(LOOK_SECONDS)


def report(rt: Runtime, run_id: str, timeout: float, *, as_json: bool) -> int:
    """Wait for a run, print its status, return 0, `FAILED` or `STILL_RUNNING`."""
    found = until_ended(rt, run_id, timeout)
    if found is None:
        return FAILED
    if as_json:
        showing.emit(tasks.record_of(found))
    else:
        showing.say(tasks.line_of(found))
    if found.state not in tasks.FINAL:
        showing.remark(f"Still running after {timeout:g} s; follow it with: conferral status {run_id}")
        return STILL_RUNNING
    return 0 if found.state == "SUCCESS" else FAILED
