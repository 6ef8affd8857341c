# SPDX-License-Identifier: Apache-2.0
"""Pause, resume, cancel and retry a batch: the request changes one row, runs do the rest in chunks.

From the commit of a pause or cancel on nothing of the batch begins any more, because the claim
looks at `pauses`. What has begun is finished: a credential that was signed is issued and told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import credential
from conferral.domain.problems import Problem
from conferral.domain.table import csv_line, defused
from conferral.reliable import dead_letters, pauses, runs
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import INTERACTIVE, promise
from conferral.reliable.runs import OnDead, Run
from conferral.services import batching, issuing
from conferral.services.changing_batches import named
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import batch_steering, batches, bookkeeping, credentials
from conferral.store.records import Record

CANCEL_TASK: Final = "tasks.issuance.cancel_batch"
RETRY_TASK: Final = "tasks.issuance.retry_batch"
CHUNK: Final = 200  # burials a commit: each marks a credential and announces it
CHUNKS_A_RUN: Final = 5  # the pool's hard limit is 25 s
BUNDLE_LOOK_SECONDS: Final = 1.0  # between looks at bundles that were claimed before the cancel
RESULTS_CHUNK: Final = 1_000  # rows a snapshot while results are streamed

RESULT_COLUMNS: Final = (
    "row", "external_id", "recipient_name", "recipient_email", "state", "reason", "message",
    "credential_id", "issued_at", "page", "credential",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Steered:
    """How many rows a verb concerns, the states of the others, and the run that does it, if there is one."""

    affected: int
    others: dict[str, int]
    run_id: str | None = None


def pause(rt: Runtime, session: Session, caller: Caller, batch_id: str) -> Steered:
    """Let nothing of a batch begin; again changes nothing.

    Raises:
        Problem: `not_found`; `state_conflict` when it is over.
    """
    batch = named(session, caller, batch_id)
    if batching.progress(session, batch)["status"] == "completed":
        raise Problem("state_conflict", f"{batch_id} is completed; there is nothing to pause")
    if batch.state != "paused":
        _move(session, batch_id, ("running",), "paused")
        pauses.pause(session, "group", batch_id)
        _audit(rt, session, caller, "batch.paused", batch_id)
    return _counted(session, batch, (credential.QUEUED,))


def resume(rt: Runtime, session: Session, caller: Caller, batch_id: str) -> Steered:
    """Let a paused batch go on; again changes nothing.

    Raises:
        Problem: `not_found`; `state_conflict` when it is cancelled.
    """
    batch = named(session, caller, batch_id)
    if batch.state != "running":
        _move(session, batch_id, ("paused",), "running")
        pauses.resume(session, "group", batch_id)
        _audit(rt, session, caller, "batch.resumed", batch_id)
    return _counted(session, batch, (credential.QUEUED,))


def cancel(rt: Runtime, session: Session, caller: Caller, batch_id: str) -> Steered:
    """Begin no further row of a batch, and promise to mark those that had not begun; again changes nothing.

    Raises:
        Problem: `not_found`; `state_conflict` when it is over.
    """
    batch = named(session, caller, batch_id)
    counts = _counted(session, batch, (credential.QUEUED,))
    if batch.state == "cancelled":
        return counts
    if batching.progress(session, batch)["status"] == "completed":
        raise Problem("state_conflict", f"{batch_id} is completed; there is nothing to cancel")
    _move(session, batch_id, ("running", "paused"), "cancelled")
    pauses.pause(session, "group", batch_id)  # until the marks are set; then what had begun goes on
    _audit(rt, session, caller, "batch.cancelled", batch_id)
    run_id = _promise(session, CANCEL_TASK, batch, rt.new_id("chg"), "")
    return Steered(counts.affected, counts.others, run_id)


def retry(rt: Runtime, session: Session, caller: Caller, batch_id: str) -> Steered:
    """Promise the failed, cancelled and missing rows of a batch again, each under its own identity.

    Raises:
        Problem: `not_found`; `state_conflict` while it is paused.
    """
    batch = named(session, caller, batch_id)
    counts = _counted(session, batch, (credential.FAILED,))
    if batch.state == "paused":
        raise Problem("state_conflict", f"{batch_id} is paused; resume it first")
    if counts.affected == 0:
        return counts
    _move(session, batch_id, ("running", "completed", "cancelled"), "running")
    pauses.resume(session, "group", batch_id)
    _audit(rt, session, caller, "batch.retried", batch_id)
    run_id = _promise(session, RETRY_TASK, batch, rt.new_id("chg"), "")
    return Steered(counts.affected, counts.others, run_id)


def possible(progress: dict[str, Any]) -> list[str]:
    """Return which of the verbs make sense now, for whoever shows them as buttons."""
    states = progress["credentials"]
    steps = {"running": ["pause", "cancel"], "paused": ["resume", "cancel"]}.get(progress["status"], [])
    missing = progress["not_created"] if progress["status"] != "running" else 0
    may_retry = progress["status"] != "paused" and states.get(credential.FAILED, 0) + missing > 0
    return [*steps, *(["retry"] if may_retry else [])]


VERBS: Final = {"pause": pause, "resume": resume, "cancel": cancel, "retry": retry}


def cancel_next(rt: Runtime, run: Run, batch_id: str, change_id: str, after: str) -> None:
    """Cancel the next runs of a cancelled batch that had not begun; the last such run lifts the pause."""
    batch = _existing(rt, batch_id)
    is_done, cancelled = False, 0
    for _ in range(CHUNKS_A_RUN):
        with rt.database.transaction() as session:
            if batch_steering.locked_state(session, batch_id) != "cancelled":
                break  # somebody retries it by now
            found = batch_steering.unbegun(session, batch_id, (batching.TASK, issuing.TASK), CHUNK)
            cancelled += sum(runs.cancel(session, run_id, _burials(rt)) for run_id in found)
        crash_point("batch.chunk_cancelled")
        if len(found) < CHUNK:
            is_done = True
            break
    with rt.database.transaction() as session:
        is_cancelled = batch_steering.locked_state(session, batch_id) == "cancelled"
        # What was claimed behind others is given back as soon as they end, and must meet the pause then.
        is_late = batch_steering.is_about_to_begin(session, batch_id, issuing.TASK)
        if is_cancelled and is_done and not is_late:
            pauses.resume(session, "group", batch_id)
        elif is_cancelled:
            due_at = rt.database.now() + timedelta(seconds=BUNDLE_LOOK_SECONDS if is_late else 0)
            _promise(session, CANCEL_TASK, batch, change_id, run.id, due_at=due_at)
        run.settle(session, {"cancelled": cancelled, "went_on_after": after or None})


def retry_next(rt: Runtime, run: Run, batch_id: str, change_id: str, after: str) -> None:
    """Take up the next rows of a batch that were given up; the last such run has the missing ones made."""
    batch = _existing(rt, batch_id)
    last, again, is_done = after, 0, False
    for _ in range(CHUNKS_A_RUN):
        with rt.database.transaction() as session:
            if batch_steering.locked_state(session, batch_id) != "running":
                break  # paused or cancelled again
            found = batch_steering.given_up(session, batch_id, issuing.TASK, last, CHUNK)
            again += sum(_take_up(session, row) for row in found)
        crash_point("batch.chunk_retried")
        last = found[-1].id if found else last
        if len(found) < CHUNK:
            is_done = True
            break
    with rt.database.transaction() as session:
        is_running = batch_steering.locked_state(session, batch_id) == "running"
        if is_running and not is_done:
            _promise(session, RETRY_TASK, batch, change_id, last)
        elif is_running and not batch_steering.is_expanding(session, batch_id, batching.TASK):
            batching.promise_expansion(session, batch_id, batch.organisation_id, 0, change_id)
        run.settle(session, {"retried": again})


def results(rt: Runtime, batch: Record) -> Iterator[str]:
    """Yield a CSV file, line by line: every row of a batch, its state, its reason, its addresses.

    No cell is a formula to a spreadsheet; each thousand rows are read by themselves, so a long
    download holds nothing.
    """
    yield "\ufeff" + csv_line(RESULT_COLUMNS, ",")
    last = 0
    while True:
        with rt.database.snapshot() as session:
            rows = batch_steering.results(session, batch.id, last, RESULTS_CHUNK)
        for row in rows:
            yield csv_line(map(defused, _result(rt, batch, row)), ",")
        if len(rows) < RESULTS_CHUNK:
            return
        last = rows[-1].number


def _result(rt: Runtime, batch: Record, row: Record) -> list[str]:
    said = row.content
    reason = row.failure_code if row.id is not None else None
    if row.id is None and batch.state == "cancelled":
        reason = "cancelled"
    return [
        str(row.number),
        said.get("external_id") or "",
        said.get("recipient_name") or "",
        said.get("recipient_email") or "",
        row.state or "not_created",
        reason or "",
        row.failure_detail or "",
        row.id or "",
        row.issued_at.isoformat() if row.issued_at else "",
        rt.url(f"/c/{row.token}") if row.token else "",
        rt.url(f"/v1/credentials/{row.id}") if row.id else "",
    ]


def _take_up(session: Session, row: Record) -> bool:
    # The state first: a credential that another one replaces by now stays as it is.
    return credentials.record_requeued(session, row.subject) and dead_letters.revive(session, row.id)


def _burials(rt: Runtime) -> Any:
    def give_up(session: Session, run: Run, error: Permanent) -> None:
        issuing.give_up(rt, session, run, error)

    known: dict[str, OnDead] = {issuing.TASK: give_up}
    return known.get


def _counted(session: Session, batch: Record, states: tuple[str, ...]) -> Steered:
    by_state = credentials.count_states(session, batch.id)
    missing = max(batch.total - sum(by_state.values()), 0)
    affected = missing + sum(by_state.get(state, 0) for state in states)
    return Steered(affected, {state: n for state, n in by_state.items() if state not in states})


def _move(session: Session, batch_id: str, states: tuple[str, ...], to: str) -> None:
    if not batch_steering.move(session, batch_id, states, to):
        raise Problem("state_conflict", f"{batch_id} cannot become {to}: it is not {' or '.join(states)}")


def _promise(
    session: Session, task: str, batch: Record, change_id: str, after: str, *, due_at: datetime | None = None
) -> str:
    # Without the batch as its group: the pause that it works under must not hold it.
    return promise(
        session,
        task,
        [batch.id, change_id, after],
        key=f"{task.rpartition('.')[2]}:{change_id}:{after}",
        subject=batch.id,
        tenant=batch.organisation_id,
        priority=INTERACTIVE,
        due_at=due_at,
    )


def _existing(rt: Runtime, batch_id: str) -> Record:
    with rt.database.snapshot() as session:
        batch = batches.for_expanding(session, batch_id)
    if batch is None:
        raise Permanent("not_found", f"there is no batch {batch_id}")
    return batch


def _audit(rt: Runtime, session: Session, caller: Caller, action: str, batch_id: str) -> None:
    bookkeeping.audit(
        session, organisation_id=caller.organisation_id, actor=caller.actor, action=action,
        subject=batch_id, request_id=caller.request_id, created_at=rt.database.now(),
    )  # fmt: skip
