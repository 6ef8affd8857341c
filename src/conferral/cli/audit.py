# SPDX-License-Identifier: Apache-2.0
"""`conferral audit`: is everything here as it was promised? Reads rows and files, and changes nothing.

It needs no broker and no running installation; beside one, what is under way is never taken for a deviation.
"""

from __future__ import annotations

import sys
import time

import click

from conferral import wiring
from conferral.cli import installation, processes, showing
from conferral.cli.main import FAILED
from conferral.domain.audit import CHECKS, Deviation, UnknownCheck, chosen
from conferral.services import auditing
from conferral.services.auditing import Audit

_EVERY_SECONDS = 0.2  # the progress on a terminal


@click.command()
@click.option("--only", metavar="CHECKS", default="", help="Only these checks, e.g. A3,A5 (default: all).")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Check files and signatures of about N credentials only; everything else is checked in full.",
)
@installation.with_json
def audit(only: str, sample: int | None, as_json: bool) -> int:
    """Check everything that was promised against rows and files; see docs/how-to/audit.md."""
    try:
        checks = chosen(only.split(","))
    except UnknownCheck as unknown:
        raise click.UsageError(str(unknown)) from None
    began = time.monotonic()
    settings = processes.prepared("cli")
    schedules = {name: entry["schedule"] for name, entry in wiring.schedule_of(settings).items()}
    with installation.opened(settings) as rt:
        asked = Audit(
            rt, checks, sample=sample, limits=_limits(), schedules=schedules, tell=_teller(as_json=as_json)
        )
        for found in auditing.findings(asked):
            _clear(as_json=as_json)
            if as_json:
                showing.emit(_record(found))
            elif isinstance(found, Deviation):
                showing.say(found.line())
            else:
                showing.remark(found.line())
    seconds = time.monotonic() - began
    _clear(as_json=as_json)
    _conclude(asked, seconds, as_json=as_json)
    return FAILED if asked.tally.deviations else 0


def _limits() -> dict[str, int]:
    """Return how many attempts each task is given."""
    from conferral.tasks.celery_app import TASKS

    return {name: task.policy.max_attempts for name, task in TASKS.items()}


def _record(found: auditing.Finding) -> dict[str, object]:
    if isinstance(found, Deviation):
        return {"kind": "deviation", "check": found.check, "subject": found.subject, "text": found.text}
    return {"kind": "remark", "check": found.check, "text": found.text}


def _conclude(asked: Audit, seconds: float, *, as_json: bool) -> None:
    tally = asked.tally
    if not as_json:
        showing.say(tally.line(seconds))
        return
    showing.emit(
        {
            "kind": "summary", "checks": sorted(asked.only, key=list(CHECKS).index),
            "credentials": tally.credentials, "runs": tally.runs, "log": tally.log,
            "deviations": tally.deviations, "orphans": tally.orphans, "seconds": round(seconds, 3),
        }
    )  # fmt: skip


class _Progress:
    """One line on stderr that is written over itself; nothing where nobody looks."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            sys.stderr.write(f"\r\x1b[K{what} {done:,} of {total:,}")
            sys.stderr.flush()


def _teller(*, as_json: bool) -> auditing.Tell:
    return _Progress() if sys.stderr.isatty() and not as_json else _silent


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def _clear(*, as_json: bool) -> None:
    if sys.stderr.isatty() and not as_json:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
