# SPDX-License-Identifier: Apache-2.0
"""Watch a batch: absolute counts from the database, as bars, as lines or as JSON, until all runs are final.

Looking changes nothing: whoever detaches loses nothing, and the batch goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from conferral.cli import showing
from conferral.cli.main import FAILED, INTERRUPTED
from conferral.domain.problems import PROBLEMS
from conferral.reliable import status
from conferral.services import batching
from conferral.services.runtime import Runtime
from conferral.store.queries import batch_failures, deliveries
from conferral.store.records import Record

STILL_RUNNING = 7
LOOK_SECONDS = 0.25  # four times a second is alive to the eye
LINE_SECONDS = 1.0  # a log needs less
LOAD = 10  # a look may cost a tenth of the time at most
LISTED_FAILURES = 20
WORKER_SEEN = timedelta(seconds=60)
_OPEN = ("PENDING", "STARTED", "RETRY")
_BAR_WIDTH = 30
_AT_ONCE = 0.5  # it was finished before anybody looked
_NAMES = {"issue_credential": "issue", "send_issuance_email": "e-mail", "post_event": "webhook"}


@dataclass(frozen=True, slots=True)
class Step:
    """One bar: how many are done, of how many, how many are tried again, how many failed."""

    name: str
    done: int
    total: int
    again: int
    failed: int

    @property
    def marks(self) -> str:
        """What deserves attention: `⟳31 ✗1`."""
        again = f"⟳{self.again}" if self.again else ""
        failed = f"✗{self.failed}" if self.failed else ""
        return " ".join(mark for mark in (again, failed) if mark)

    def __str__(self) -> str:
        return f"{self.name} {self.done}/{self.total}{' ' + self.marks if self.marks else ''}"


def steps_of(progress: Mapping[str, Any], endpoints: int) -> list[Step]:
    """Return the bars of a batch's counts.

    Args:
        progress: as `batching.progress` returns it.
        endpoints: how many webhook endpoints are told of each credential.
    """
    credentials, tasks = progress["credentials"], progress["tasks"]
    failed = credentials.get("failed", 0)
    unfinished = credentials.get("queued", 0) + credentials.get("issuing", 0)
    issued = sum(credentials.values()) - failed - unfinished
    issuing = tasks.get("issue_credential", {})
    steps = [Step("Issued", issued, progress["total"], issuing.get("RETRY", 0), failed)]
    expected = progress["total"] - failed
    steps.append(_delivered("E-mail", tasks.get("send_issuance_email", {}), expected))
    hooks = tasks.get("post_event", {})
    if hooks or endpoints:
        steps.append(_delivered("Webhook", hooks, expected * endpoints))
    return steps


def _delivered(name: str, counts: Mapping[str, int], expected: int) -> Step:
    failed = counts.get("FAILURE", 0) + counts.get("REVOKED", 0)
    total = max(expected, sum(counts.values()))
    return Step(name, counts.get("SUCCESS", 0), total, counts.get("RETRY", 0), failed)


def watch(rt: Runtime, batch: Record, *, timeout_seconds: float | None, as_json: bool) -> int:
    """Show a batch until all its runs are final, the time is over, or somebody detaches.

    Returns:
        0, 1 when something failed, 7 at the timeout, 130 when detached.
    """
    began = time.monotonic()
    deadline = None if timeout_seconds is None else began + timeout_seconds
    try:
        with _shower(batch.id, as_json=as_json) as show:
            is_done, progress = _follow(rt, batch, deadline, show)
    except KeyboardInterrupt:
        showing.remark(f"\nDetached; the batch goes on. Come back with: conferral batch watch {batch.id}")
        return INTERRUPTED
    if not is_done:
        showing.remark(f"Still running; come back with: conferral batch watch {batch.id}")
        return STILL_RUNNING
    return summarise(rt, batch, progress, seconds=time.monotonic() - began, as_json=as_json)


def summarise(
    rt: Runtime, batch: Record, progress: Mapping[str, Any], *, seconds: float, as_json: bool
) -> int:
    """Say how a finished batch ended; return the exit code."""
    with rt.database.snapshot() as session:
        failures = batch_failures.failures(session, batch.id, LISTED_FAILURES)
    # Rows that were ready and are no credential now: the template changed in between.
    lost = progress["not_created"]
    code = FAILED if failures or lost or progress["credentials"].get("failed") else 0
    if as_json:
        listed = [failure_record(row) for row in failures]
        showing.emit({"event": "done", **progress, "failures": listed, "exit_code": code})
        return code
    for row in failures:
        showing.say(failure_line(row))
    if lost:
        showing.say(f"{lost} rows are not valid any more and were not issued")
    steps = ", ".join(
        f"{step.done} {noun}" for step, noun in zip(steps_of(progress, 0), _NOUNS, strict=False)
    )
    after = f"finished after {seconds:.1f} s" if seconds > _AT_ONCE else "is finished"
    sign = showing.painted("✗", showing.RED) if code else showing.painted("✓", showing.GREEN)
    more = f"; retry with: conferral dead replay, see: conferral batch status {batch.id}" if code else ""
    showing.say(f"{sign} {batch.id} {after}: {steps}{more}")
    return code


_NOUNS = ("issued", "e-mails sent", "webhooks delivered")


def failure_record(row: Record) -> dict[str, Any]:
    """Return a failed run of a batch for JSON."""
    return {
        "row": row.batch_row,
        "credential_id": row.credential_id,
        "task_id": row.id,
        "task": row.task,
        "code": row.error_code,
        "message": row.error_detail,
    }


def failure_line(row: Record) -> str:
    """Return a failed run of a batch for people."""
    what = _NAMES.get(row.task.rpartition(".")[2], row.task.rpartition(".")[2])
    known = PROBLEMS.get(row.error_code or "")
    title = f"{known.title}. {known.cure}" if known else row.error_detail
    where = f"row {row.batch_row}" if row.batch_row is not None else "batch"
    return f"{where}, {what}: {title} [{row.error_code}] {row.credential_id or row.id}"


def _follow(
    rt: Runtime, batch: Record, deadline: float | None, show: Callable[[Mapping[str, Any], list[Step]], None]
) -> tuple[bool, Mapping[str, Any]]:
    with rt.database.snapshot() as session:
        endpoints = sum(
            row.state == "enabled"
            for row in deliveries.endpoints_of(session, batch.organisation_id, batch.mode)
        )
    is_first = True
    while True:
        asked = time.monotonic()
        with rt.database.snapshot() as session:
            progress = batching.progress(session, batch)
        show(progress, steps_of(progress, endpoints))
        if is_final(progress):
            return True, progress
        if is_first:
            is_first = False
            _warn_without_workers(rt)
        pause = max(LOOK_SECONDS, LOAD * (time.monotonic() - asked))
        if deadline is not None and time.monotonic() + pause > deadline:
            if time.monotonic() >= deadline:
                return False, progress
            pause = max(0.0, deadline - time.monotonic())
        time.sleep(pause)


def is_final(progress: Mapping[str, Any]) -> bool:
    """Whether no run of a batch will move by itself any more."""
    return not any(counts.get(state) for counts in progress["tasks"].values() for state in _OPEN)


def _warn_without_workers(rt: Runtime) -> None:
    with rt.database.snapshot() as session:
        alive = status.live_workers(session, rt.database.now() - WORKER_SEEN)
    if not alive:
        showing.remark(
            "No worker is running, so nothing moves yet; start `conferral up` in another terminal."
        )


_Show = Callable[[Mapping[str, Any], list[Step]], None]


@contextmanager
def _shower(batch_id: str, *, as_json: bool) -> Iterator[_Show]:
    if as_json:
        yield _json_shower()
    elif sys.stdout.isatty():
        with _bars() as show:
            yield show
    else:
        yield _line_shower(batch_id)


def _json_shower() -> _Show:
    last: list[Mapping[str, Any]] = []

    def show(progress: Mapping[str, Any], _: Sequence[Step]) -> None:
        if last[-1:] != [progress]:
            last[:] = [progress]
            showing.emit({"event": "progress", **progress})

    return show


def _line_shower(batch_id: str) -> _Show:
    shown = ""
    next_at = 0.0

    def show(progress: Mapping[str, Any], steps: Sequence[Step]) -> None:
        nonlocal shown, next_at
        line = "  ".join(str(step) for step in steps)
        if line != shown and (time.monotonic() >= next_at or is_final(progress)):
            shown, next_at = line, time.monotonic() + LINE_SECONDS
            showing.say(f"{batch_id}  {line}")

    return show


@contextmanager
def _bars() -> Iterator[_Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    bars = Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(_BAR_WIDTH, style="bright_black", complete_style="cyan", finished_style="green"),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("[yellow]{task.fields[again]}[/] [red]{task.fields[failed]}[/]"),
        console=Console(),
        refresh_per_second=1 / LOOK_SECONDS,
    )
    ids: dict[str, TaskID] = {}

    def show(_: Mapping[str, Any], steps: Sequence[Step]) -> None:
        for step in steps:
            if step.name not in ids:
                ids[step.name] = bars.add_task(step.name, total=step.total, again="", failed="")
            again, failed = (f"⟳{step.again}" if step.again else "", f"✗{step.failed}" if step.failed else "")
            bars.update(ids[step.name], total=step.total, completed=step.done, again=again, failed=failed)

    with bars:
        yield show
