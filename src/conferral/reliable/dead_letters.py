# SPDX-License-Identifier: Apache-2.0
"""Dead letters: runs that ended as FAILURE, by cause; replayed or discarded by a person.

A replay keeps the run's identity and so its effect's; it gives the run a fresh budget, and
never resets `attempt`, or a frozen worker of the first life would match the fence again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from conferral.reliable.outbox import Ring, outbox_of, terms_of
from conferral.reliable.promises import INTERACTIVE
from conferral.reliable.runs import successor_of
from conferral.reliable.tables import FAILURE, PARKED, PENDING, REVOKED, SUCCESS, runs

PAGE = 100


@dataclass(frozen=True, slots=True)
class Cause:
    """How many dead letters one task has for one reason."""

    task: str
    code: str
    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; everything given must match."""

    task: str | None = None
    code: str | None = None
    tenant: str | None = None
    run_ids: tuple[str, ...] | None = None

    def conditions(self) -> list[Any]:
        """Return the SQL conditions; discarded ones (`REVOKED`) are never among them."""
        wanted: list[Any] = [PARKED]
        if self.task is not None:
            wanted.append(runs.c.task == self.task)
        if self.code is not None:
            wanted.append(runs.c.error_code == self.code)
        if self.tenant is not None:
            wanted.append(runs.c.tenant == self.tenant)
        if self.run_ids is not None:
            wanted.append(runs.c.id.in_(self.run_ids))
        return wanted


def causes(session: Session, wanted: Filter = Filter()) -> list[Cause]:
    """Count dead letters by task and code, most frequent first."""
    counted = session.execute(
        select(runs.c.task, runs.c.error_code, func.count(), func.min(runs.c.finished_at))
        .where(*wanted.conditions())
        .group_by(runs.c.task, runs.c.error_code)
        .order_by(func.count().desc(), runs.c.task, runs.c.error_code)
    )
    return [Cause(task, code or "internal", count, oldest) for task, code, count, oldest in counted]


def listed(session: Session, wanted: Filter = Filter(), *, limit: int = PAGE) -> Sequence[Any]:
    """Return the dead letters themselves, oldest first: rows of `runs`."""
    return session.execute(
        select(runs).where(*wanted.conditions()).order_by(runs.c.finished_at, runs.c.id).limit(limit)
    ).all()


def replay(session: Session, wanted: Filter, *, limit: int = PAGE) -> list[str]:
    """Make dead letters due again; return their ids. What `listed` shows is what this replays."""
    now = terms_of(session).now()
    return [row.id for row in listed(session, wanted, limit=limit) if _replay_one(session, row, now)]


def revive(session: Session, run_id: str) -> bool:
    """Make one ended run due again, parked or not; for whoever finds its work undone.

    The caller has shown that the effect is missing; the run keeps identity and history.
    False when the run has not ended, or when a successor of its coalescing key waits already.
    """
    now = terms_of(session).now()
    fresh: dict[str, Any] = {
        "state": PENDING, "spent": 0, "due_at": now, "rung_at": None, "held": False, "finished_at": None,
        "result": None, "error_code": None, "error_detail": None,
    }  # fmt: skip
    ended = (runs.c.id == run_id, runs.c.state.in_((FAILURE, SUCCESS, REVOKED)))
    try:
        with session.begin_nested():
            moved = session.execute(update(runs).where(*ended).values(**fresh))
    except IntegrityError:
        return False
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def discard(session: Session, wanted: Filter, *, limit: int = PAGE) -> list[str]:
    """Give dead letters up for good; return their ids. They stay in the history as cancelled."""
    now = terms_of(session).now()
    ids = [row.id for row in listed(session, wanted, limit=limit)]
    given_up = update(runs).where(runs.c.id.in_(ids), PARKED).values(state=REVOKED, finished_at=now)
    return sorted(session.execute(given_up.returning(runs.c.id)).scalars())


def _replay_one(session: Session, row: Any, now: datetime) -> bool:
    at_once = row.priority == INTERACTIVE and terms_of(session).routing.rate_of(row.queue) is None
    fence = (runs.c.id == row.id, runs.c.state == FAILURE, runs.c.attempt == row.attempt)
    fresh: dict[str, Any] = {
        "state": PENDING, "spent": 0, "due_at": now, "rung_at": now if at_once else None,
        "held": False, "finished_at": None, "error_code": None, "error_detail": None,
    }  # fmt: skip
    try:
        with session.begin_nested():
            moved = session.execute(update(runs).where(*fence).values(**fresh))
    except IntegrityError:
        merged = {"merged_into": successor_of(session, row.coalesce_key)}
        session.execute(update(runs).where(*fence).values(state=SUCCESS, result=merged, finished_at=now))
        return True
    if moved.rowcount != 1:  # type: ignore[attr-defined]  # CursorResult, by construction
        return False
    if at_once:
        outbox_of(session).rings.append(Ring(row.id, row.task, row.queue))
    return True
