# SPDX-License-Identifier: Apache-2.0
"""Read what runs are doing: one run's state, a subject's timeline, the depth of queues.

This is the status interface; Celery's results are not (an unknown id and a queued one look
alike there, and a flushed Redis turns every finished task into a pending one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from conferral.reliable.runs import Run
from conferral.reliable.tables import (
    CLAIMABLE,
    FAILURE,
    LEASED,
    PARKED,
    RETRY,
    RUNG,
    STARTED,
    UNRUNG,
    WAITING,
    attempts,
    runs,
    workers,
)

UNKNOWN_ENDS = ("ambiguous", "lost", "fenced")
RETRIED = ("retry", "ambiguous", "lost", "fenced")  # outcomes after which the run was tried again


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run as its client sees it.

    Attributes:
        state: PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED; a waiting run is STARTED
            with `waiting_for`.
        retry_count: attempts that ended in another try; snoozes are not counted.
        snooze_count: how often it was put off before it could begin.
        next_retry_at: only in RETRY.
    """

    id: str
    task: str
    state: str
    waiting_for: str | None
    result: Any
    error_code: str | None
    error_detail: str | None
    retry_count: int
    next_retry_at: datetime | None
    subject: str | None
    tenant: str
    snooze_count: int
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def status_of(session: Session, run_id: str) -> RunStatus | None:
    """Return a run's status, or None for an unknown id."""
    row = session.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        return None
    retried = session.execute(
        select(func.count())
        .select_from(attempts)
        .where(attempts.c.run_id == run_id, attempts.c.outcome.in_(RETRIED))
    ).scalar_one()
    return describe(row, retried)


def describe(row: Row[Any], retried: int) -> RunStatus:
    """Turn a row of `runs` into what its client sees."""
    failed = row.state in (RETRY, FAILURE)
    return RunStatus(
        id=row.id,
        task=row.task,
        state=STARTED if row.state == WAITING else row.state,
        waiting_for=row.waiting_for if row.state == WAITING else None,
        result=row.result,
        error_code=row.error_code if failed else None,
        error_detail=row.error_detail if failed else None,
        retry_count=retried - (1 if row.state == FAILURE and _poisoned(row) else 0),
        next_retry_at=row.due_at if row.state == RETRY else None,
        subject=row.subject,
        tenant=row.tenant,
        snooze_count=row.snoozes,
        queued_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _poisoned(row: Row[Any]) -> bool:
    return bool(row.error_code == "poison")  # its last `lost` attempt had no other try after it


def may_have_acted(session: Session, run: Run) -> bool:
    """Return whether an earlier attempt may have acted without anybody knowing.

    Its answer was lost, or its process died: what this attempt does may be a repetition.
    """
    if run.number == 1:
        return False
    earlier = session.execute(
        select(attempts.c.outcome).where(attempts.c.run_id == run.id, attempts.c.number < run.number)
    ).scalars()
    return any(outcome in UNKNOWN_ENDS for outcome in earlier)


def was_parked(session: Session, run: Run) -> bool:
    """Return whether the run was a dead letter before: then a person replayed it."""
    if run.number == 1:
        return False
    found = session.execute(
        select(attempts.c.number).where(attempts.c.run_id == run.id, attempts.c.outcome == "failure").limit(1)
    ).first()
    return found is not None


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """A run of a subject with its attempts, oldest first."""

    run: RunStatus
    attempts: Sequence[Any]


def timeline(session: Session, subject: str) -> list[TimelineEntry]:
    """Return everything that was promised for a subject, in time order."""
    rows = session.execute(
        select(runs).where(runs.c.subject == subject).order_by(runs.c.created_at, runs.c.id)
    ).all()
    history: dict[str, list[Any]] = {row.id: [] for row in rows}
    for attempt in session.execute(
        select(attempts)
        .where(attempts.c.run_id.in_(list(history)))
        .order_by(attempts.c.run_id, attempts.c.number)
    ):
        history[attempt.run_id].append(attempt)
    return [
        TimelineEntry(describe(row, sum(one.outcome in RETRIED for one in history[row.id])), history[row.id])
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What one queue has to do; finished runs are never counted."""

    queue: str
    due: int
    oldest_due_at: datetime | None
    scheduled: int
    rung: int
    working: int
    dead: int


def queue_status(session: Session, queue: str, now: datetime) -> QueueStatus:
    """Count one queue's live runs from partial indexes."""
    due, oldest = session.execute(
        select(func.count(), func.min(runs.c.due_at)).where(
            UNRUNG, runs.c.queue == queue, runs.c.due_at <= now
        )
    ).one()
    rung = _count(session, RUNG, queue)
    return QueueStatus(
        queue=queue,
        due=due + rung,
        oldest_due_at=oldest,
        scheduled=_count(session, CLAIMABLE, queue) - due - rung,
        rung=rung,
        working=_count(session, LEASED, queue),
        dead=_count(session, PARKED, queue),
    )


def _count(session: Session, condition: Any, queue: str) -> int:
    counted: int = session.execute(
        select(func.count()).select_from(runs).where(condition, runs.c.queue == queue)
    ).scalar_one()
    return counted


def counts_by_task(session: Session, group_key: str) -> dict[str, dict[str, int]]:
    """Count a group's runs by task and state (WAITING reads as STARTED)."""
    counted: dict[str, dict[str, int]] = {}
    for task, state, count in session.execute(
        select(runs.c.task, runs.c.state, func.count())
        .where(runs.c.group_key == group_key)
        .group_by(runs.c.task, runs.c.state)
    ):
        shown = STARTED if state == WAITING else state
        by_state = counted.setdefault(task, {})
        by_state[shown] = by_state.get(shown, 0) + count
    return counted


def live_workers(session: Session, since: datetime) -> Sequence[Any]:
    """Return the worker processes seen since a time: rows of `workers`."""
    return session.execute(
        select(workers).where(workers.c.seen_at > since).order_by(workers.c.node, workers.c.pid)
    ).all()
