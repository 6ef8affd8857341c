# SPDX-License-Identifier: Apache-2.0
"""Bring back the runs of dead workers, and bury those that kill every worker they meet.

A lease that ran out, or whose owner on this host is gone, makes its run due again; the lost
attempt is recorded here, because the dead cannot. Runs are rescued one by one: a coalescing
successor must not make the rescue of its neighbours fail.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any
from zlib import crc32

from sqlalchemy import Row, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from conferral.reliable.errors import Permanent
from conferral.reliable.outbox import Shown, outbox_of, terms_of
from conferral.reliable.owner import is_gone
from conferral.reliable.promises import INTERACTIVE
from conferral.reliable.runs import UNLEASED, OnDead, Run, counted, record_attempt, successor_of, unbegun
from conferral.reliable.tables import CLAIMABLE, FAILURE, LEASED, RETRY, STARTED, SUCCESS, attempts, runs

log = logging.getLogger(__name__)

POISON_AFTER = 3  # attempts in a row that died with their process, the last one alone in it
# A process of threads takes all its runs with it, and nobody can tell which of them did it. They are
# patient with one another, and come back apart, so that the guilty one meets fewer each time.
POISON_TOGETHER_AFTER = 10
APART_SECONDS = 5.0  # times the losses in a row before this one: at most this far apart
LOST_CODE = "worker_lost"
INTERRUPTED_LIMIT = 16  # more than a pool has slots: each new process takes one
RESCUE_LIMIT = 200  # runs a pass: each is a few statements in one transaction

# A burial (`on_dead`) that raises is tried again at every pass for this long; then the run is
# parked without it, loudly: no run may be lost, or rescued for ever, because its burial fails.
BURIAL_PATIENCE = timedelta(seconds=10)


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
        select(runs).where(LEASED, runs.c.lease_until < now).order_by(runs.c.lease_until).limit(RESCUE_LIMIT)
    ).all()
    return _rescue_all(session, expired, now, on_dead)


def rescue_gone(
    session: Session, run_ids: Sequence[str], on_dead: Callable[[str], OnDead | None]
) -> list[Rescued]:
    """Rescue those of `run_ids` whose owner was a process of this host that no longer exists.

    The message of a dead child comes back to its node within a moment; waiting for the lease
    would turn that moment into half a minute.
    """
    now = terms_of(session).now()
    held = session.execute(select(runs).where(LEASED, runs.c.id.in_(run_ids))).all()
    orphans = [row for row in held if is_gone(row.lease_owner or "")]
    return _rescue_all(session, orphans, now, on_dead)


def orphans(session: Session) -> list[str]:
    """Return the runs held by processes of this host that no longer exist; at most RESCUE_LIMIT.

    For whoever is not told by a message: a main process that was killed takes its messages
    with it, a child killed by its time limit may have had its message acknowledged.
    """
    owners = session.execute(select(runs.c.lease_owner).where(LEASED).distinct()).scalars()
    gone = [owner for owner in owners if owner and is_gone(owner)]
    if not gone:
        return []
    held = select(runs.c.id).where(LEASED, runs.c.lease_owner.in_(gone)).limit(RESCUE_LIMIT)
    return list(session.execute(held).scalars())


def interrupted(session: Session, queue: str) -> list[tuple[str, str]]:
    """Return id and task of the due runs of a queue whose last process died, the longest waiting first."""
    found = session.execute(
        select(runs.c.id, runs.c.task)
        .where(CLAIMABLE, runs.c.queue == queue, runs.c.error_code == LOST_CODE)
        .where(runs.c.state == RETRY, runs.c.due_at <= terms_of(session).now())
        .order_by(runs.c.due_at)
        .limit(INTERRUPTED_LIMIT)
    )
    return [(row.id, row.task) for row in found]


def _rescue_all(
    session: Session, held: Sequence[Row[Any]], now: datetime, on_dead: Callable[[str], OnDead | None]
) -> list[Rescued]:
    owners = sorted({row.lease_owner for row in held if row.lease_owner})
    gone = {owner for owner in owners if is_gone(owner)}
    begun = select(runs.c.lease_owner, runs.c.lease_until).where(
        LEASED, runs.c.started_at.is_not(None), runs.c.lease_owner.in_(owners)
    )
    # What a living owner still works on is no company in death: one of its leases was let go.
    lost = Counter(
        row.lease_owner
        for row in (session.execute(begun) if owners else ())
        if row.lease_owner in gone or row.lease_until < now
    )
    together = {owner for owner, count in lost.items() if count > 1}
    losses = [_Loss(row, now, alone=row.lease_owner not in together) for row in held]
    return [rescued for one in losses if (rescued := _rescue(session, one, on_dead))]


@dataclass(frozen=True, slots=True)
class _Loss:
    """A run whose owner is gone, and whether it was the only one that the owner had begun."""

    row: Row[Any]
    now: datetime
    alone: bool


def _rescue(session: Session, loss: _Loss, on_dead: Callable[[str], OnDead | None]) -> Rescued | None:
    """Rescue one run in a savepoint of its own: a burial that raises must not undo its neighbours'."""
    row, now = loss.row, loss.now
    try:
        with session.begin_nested():
            return _rescue_one(session, loss, on_dead)
    except Exception:
        log.exception("burial_failed", extra={"run_id": row.id, "task": row.task, "code": "poison"})
    if now - row.lease_until < BURIAL_PATIENCE:
        return None
    with session.begin_nested():
        return _rescue_one(session, loss, lambda _: None)


def _rescue_one(session: Session, loss: _Loss, on_dead: Callable[[str], OnDead | None]) -> Rescued | None:
    row, now = loss.row, loss.now
    in_a_row = _lost_in_a_row(session, row)
    values: dict[str, Any] = {"due_at": now, "error_code": LOST_CODE, "error_detail": _LOST}
    state, is_lost = RETRY, True
    if row.started_at is None:  # a neighbour in a bundle: it had not begun and is not charged
        is_lost, values = False, {"due_at": now, **unbegun(row)}
    elif in_a_row >= (POISON_AFTER if loss.alone else POISON_TOGETHER_AFTER):
        state = FAILURE
        values = {"finished_at": now, "error_code": POISON.code, "error_detail": POISON.detail}
    elif not loss.alone:
        values["due_at"] = now + _apart(row, in_a_row - 1)
    moved_to = _move_from(session, row, state, now, values)
    if moved_to is None:
        return None
    if is_lost:
        record_attempt(
            session, run_id=row.id, number=row.attempt - row.snoozes, owner=row.lease_owner,
            started_at=row.started_at, finished_at=now, outcome="lost", error_code=LOST_CODE,
            error_detail=_LOST, next_due_at=None if loss.alone else values.get("due_at"),
        )  # fmt: skip
    if moved_to == FAILURE:
        if (bury := on_dead(row.task)) is not None:
            bury(session, _run_of(row, now), POISON)
        if row.priority == INTERACTIVE:
            outbox_of(session).shown.append(Shown(row.id, FAILURE, POISON.code))
    return Rescued(row.id, row.task, row.queue, moved_to)


_LOST = "the process that executed it died or froze"
POISON = Permanent("poison", "every attempt, again and again, died with its process")


def _run_of(row: Row[Any], now: datetime) -> Run:
    return Run(
        id=row.id, task=row.task, args=row.args, subject=row.subject, tenant=row.tenant,
        priority=row.priority, group_key=row.group_key, coalesce_key=row.coalesce_key,
        attempt=row.attempt, spent=row.spent, snoozes=row.snoozes, owner=row.lease_owner or "",
        claimed_at=row.started_at or now, outcome=FAILURE,
    )  # fmt: skip


def _move_from(
    session: Session, row: Row[Any], state: str, now: datetime, values: dict[str, Any]
) -> str | None:
    """Move one leased run; None when its owner was faster, SUCCESS when it merged."""
    # The lease's end is part of the fence: an owner that renewed it meanwhile is alive.
    leased = update(runs).where(
        runs.c.id == row.id,
        runs.c.state == STARTED,
        runs.c.attempt == row.attempt,
        runs.c.lease_until == row.lease_until,
    )
    try:
        with session.begin_nested():
            moved = session.execute(leased.values(state=state, **UNLEASED, **values))
    except IntegrityError:
        merged = {"merged_into": successor_of(session, row.coalesce_key)}
        ended = {"state": SUCCESS, "result": merged, "finished_at": now, **counted(values)}
        moved = session.execute(leased.values(**UNLEASED, **ended))
        state = SUCCESS
    return state if moved.rowcount == 1 else None  # type: ignore[attr-defined]  # CursorResult


def _lost_in_a_row(session: Session, row: Row[Any]) -> int:
    """Return how many attempts died in a row, this one included, since a person last replayed the run."""
    earlier = min(POISON_TOGETHER_AFTER, row.spent) - 1
    if earlier < 1:
        return 1
    last = session.execute(
        select(attempts.c.outcome)
        .where(attempts.c.run_id == row.id)
        .order_by(attempts.c.number.desc())
        .limit(earlier)
    ).scalars()
    return 1 + sum(1 for _ in takewhile(lambda outcome: outcome == "lost", last))


def _apart(row: Row[Any], earlier: int) -> timedelta:
    """Return a run's own share of the time in which those that died together come back."""
    share = crc32(f"{row.id}:{row.attempt}".encode()) / 0xFFFFFFFF
    return timedelta(seconds=share * earlier * APART_SECONDS)
