# SPDX-License-Identifier: Apache-2.0
"""Bring back the runs of dead workers, and bury those that kill every worker they meet.

A lease that ran out, or whose owner on this host is gone, makes its run due again; the lost
attempt is recorded here, because the dead cannot. Runs are rescued one by one: a coalescing
successor must not make the rescue of its neighbours fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from conferral.reliable.errors import Permanent
from conferral.reliable.outbox import terms_of
from conferral.reliable.owner import is_gone
from conferral.reliable.runs import UNLEASED, Run, record_attempt, successor_of
from conferral.reliable.tables import FAILURE, LEASED, RETRY, STARTED, SUCCESS, attempts, runs

POISON_AFTER = 3  # attempts in a row that died with their process
RESCUE_LIMIT = 200  # runs a pass: each is a few statements in one transaction

OnDead = Callable[[Session, Run, Permanent], None]


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of one run: `RETRY`, `FAILURE` (poison) or `SUCCESS` (merged)."""

    run_id: str
    task: str
    queue: str
    state: str


def rescue_expired(session: Session, on_dead: Callable[[str], OnDead | None]) -> list[Rescued]:
    """Rescue runs whose lease ran out; `on_dead` looks up a task's burial by its name."""
    now = terms_of(session).now()
    expired = session.execute(
        _leased().where(LEASED, runs.c.lease_until < now).order_by(runs.c.lease_until).limit(RESCUE_LIMIT)
    ).all()
    return [rescued for row in expired if (rescued := _rescue(session, row, now, on_dead))]


def rescue_gone(
    session: Session, run_ids: Sequence[str], on_dead: Callable[[str], OnDead | None]
) -> list[Rescued]:
    """Rescue those of `run_ids` whose owner was a process of this host that no longer exists.

    The message of a dead child comes back to its node within a moment; waiting for the lease
    would turn that moment into half a minute.
    """
    now = terms_of(session).now()
    held = session.execute(_leased().where(LEASED, runs.c.id.in_(run_ids))).all()
    orphans = [row for row in held if is_gone(row.lease_owner or "")]
    return [rescued for row in orphans if (rescued := _rescue(session, row, now, on_dead))]


def _leased() -> Any:
    return select(runs)


def _rescue(
    session: Session, row: Row[Any], now: datetime, on_dead: Callable[[str], OnDead | None]
) -> Rescued | None:
    begun = row.started_at is not None
    run = Run(
        id=row.id, task=row.task, args=row.args, subject=row.subject, tenant=row.tenant,
        priority=row.priority, group_key=row.group_key, coalesce_key=row.coalesce_key,
        attempt=row.attempt, spent=row.spent, owner=row.lease_owner or "", claimed_at=row.started_at or now,
    )  # fmt: skip
    if not begun:
        state = _move_from(session, row, RETRY, due_at=now, spent=row.spent - 1)
        outcome, code = "snoozed", "given_back"
    elif _is_poison(session, row):
        state = _move_from(
            session, row, FAILURE, finished_at=now, error_code="poison",
            error_detail=f"{POISON_AFTER} attempts in a row died with their process",
        )  # fmt: skip
        outcome, code = "lost", "worker_lost"
    else:
        state = _move_from(
            session, row, RETRY, due_at=now, error_code="worker_lost",
            error_detail="the process that executed it died or froze",
        )  # fmt: skip
        outcome, code = "lost", "worker_lost"
    if state is None:
        return None
    record_attempt(
        session, run_id=row.id, number=row.attempt, owner=row.lease_owner,
        started_at=row.started_at, finished_at=now, outcome=outcome, error_code=code,
    )  # fmt: skip
    if state == FAILURE and (bury := on_dead(row.task)) is not None:
        bury(session, run, Permanent("poison", "every worker that executed it died"))
    return Rescued(row.id, row.task, row.queue, state)


def _move_from(session: Session, row: Row[Any], state: str, **values: Any) -> str | None:
    """Move one leased run; None when its owner was faster, SUCCESS when it merged."""
    fence = (runs.c.id == row.id, runs.c.state == STARTED, runs.c.attempt == row.attempt)
    still_expired = runs.c.lease_until == row.lease_until
    try:
        with session.begin_nested():
            moved = session.execute(
                update(runs).where(*fence, still_expired).values(state=state, **UNLEASED, **values)
            )
    except IntegrityError:
        merged = {"merged_into": successor_of(session, row.coalesce_key)}
        moved = session.execute(
            update(runs)
            .where(*fence, still_expired)
            .values(state=SUCCESS, **UNLEASED, result=merged, finished_at=values.get("due_at"))
        )
        state = SUCCESS
    return state if moved.rowcount == 1 else None  # type: ignore[attr-defined]  # CursorResult


def _is_poison(session: Session, row: Row[Any]) -> bool:
    """Return whether this loss is the third in a row since a person last replayed the run."""
    earlier = min(POISON_AFTER - 1, row.spent - 1)
    if earlier < POISON_AFTER - 1:
        return False
    last = session.execute(
        select(attempts.c.outcome)
        .where(attempts.c.run_id == row.id)
        .order_by(attempts.c.number.desc())
        .limit(earlier)
    ).scalars()
    return all(outcome == "lost" for outcome in last)
