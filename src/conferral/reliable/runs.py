# SPDX-License-Identifier: Apache-2.0
"""The life of a run; every transition is one conditional statement that moves exactly one row.

The statement's condition is the fence: a worker that slept past its lease moves nothing, gets
`LeaseLost`, and its whole transaction is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Row, and_, bindparam, exists, insert, literal, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import LeaseLost, Permanent, Retryable, RunError
from conferral.reliable.outbox import Shown, outbox_of, terms_of
from conferral.reliable.promises import INTERACTIVE
from conferral.reliable.tables import (
    CLAIMABLE,
    FAILURE,
    PENDING,
    RETRY,
    REVOKED,
    RUNG,
    STARTED,
    SUCCESS,
    WAITING,
    attempts,
    pauses,
    runs,
)

UNLEASED: Mapping[str, Any] = {"lease_owner": None, "lease_until": None, "rung_at": None, "held": False}
MAX_DETAIL = 500  # characters of an explanation that are kept
MAX_CODE = 60  # the column's length
# Hosts measure the database's clock, each with its own small error. A run that is due here
# and not quite there would lose its bell, and wait for the next one.
CLOCK_TOLERANCE = timedelta(milliseconds=250)

# Built once: every run executes these, and building a statement costs more than executing it.
_UPDATE_STARTED = update(runs).where(
    runs.c.id == bindparam("started"), runs.c.state == STARTED, runs.c.attempt == bindparam("fence")
)
_INSERT_ATTEMPT = insert(attempts)
_PAUSED = exists().where(
    or_(
        and_(pauses.c.scope == "queue", pauses.c.name == runs.c.queue),
        and_(pauses.c.scope == "group", pauses.c.name == runs.c.group_key, pauses.c.resumed_at.is_(None)),
    )
)
_START_UNPAUSED = _UPDATE_STARTED.where(~_PAUSED)


@dataclass(slots=True)
class Run:
    """One claimed execution: what it is for, and the fence that proves it is still ours.

    Attributes:
        id: UUIDv7, also Celery's task id.
        attempt: the fencing number; it grows with every claim and never shrinks.
        spent: attempts charged to the policy, this one included.
        snoozes: earlier claims that began nothing and left no row of history.
        claimed_at: aware UTC.
        outcome: the state this attempt moved the run to, once it did.
        is_refused: of a bundle, and paused since it was claimed: it must not begin.
    """

    id: str
    task: str
    args: Sequence[str]
    subject: str | None
    tenant: str
    priority: int
    group_key: str | None
    coalesce_key: str | None
    attempt: int
    spent: int
    owner: str
    claimed_at: datetime
    lease_left: Any = None  # () -> seconds; set by the worker that holds the lease
    let_go: Any = None  # () -> None; stops renewing the lease
    outcome: str | None = None
    result: Any = None
    snoozes: int = 0
    successor: Run | None = field(default=None, repr=False)
    is_refused: bool = False

    @property
    def number(self) -> int:
        """Return this attempt's place in the history: 1..n without a gap, snoozes left out."""
        return self.attempt - self.snoozes

    def settle(self, session: Session, result: Any = None, *, evidence: Any = None) -> None:
        """Record SUCCESS in the caller's transaction; raises LeaseLost if the fence is down."""
        now = terms_of(session).now()
        _move(session, self, SUCCESS, result=result, finished_at=now, error_code=None, error_detail=None)
        _record(session, self, "success", now, evidence=evidence)
        _start_successor(session, self, now)
        self.result = result
        _show(session, self, SUCCESS, result)

    def wait(self, session: Session, waiting_for: str, *, evidence: Any = None) -> None:
        """Give the slot back until somebody brings what is missing; raises LeaseLost.

        The attempt has done its part, so it ends as a success; `wake` ends the run.
        """
        now = terms_of(session).now()
        _move(session, self, WAITING, waiting_for=waiting_for)
        _record(session, self, "success", now, evidence=evidence)
        _start_successor(session, self, now)

    def check_lease(self, seconds: float) -> None:
        """Raise Retryable when less than `seconds` of the lease are left; asks memory only."""
        if self.lease_left is not None and self.lease_left() < seconds:
            raise Retryable("internal", "the lease is about to end; nothing was sent")

    def abandon(self) -> None:
        """Stop as a crashed worker would: nothing is recorded, the lease runs out."""
        if self.let_go is not None:
            self.let_go()
        raise LeaseLost(f"run {self.id} was abandoned on purpose")


OnDead = Callable[[Session, Run, Permanent], None]


def claim(
    session: Session, run_ids: Sequence[str], *, owner: str, lease_seconds: float, task: str | None = None
) -> list[Run]:
    """Take what is due among `run_ids`; return the runs that are now ours, in the given order.

    Several ids are a bundle: it takes only runs that were never claimed before, so that a
    troublesome one is always executed alone. With `task`, runs of other tasks are refused: a
    forged message must not feed one task's ids to another. What is paused is refused, too.
    Nothing returned means: done, held by somebody else, not due or paused.
    """
    now = terms_of(session).now()
    alone = len(run_ids) == 1
    due: list[Any] = [CLAIMABLE if alone else text("state = 'PENDING' AND attempt = 0")]
    if task is not None:
        due.append(runs.c.task == task)
    taken = session.execute(
        update(runs)
        .where(runs.c.id.in_(run_ids), *due, runs.c.due_at <= now + CLOCK_TOLERANCE, ~_PAUSED)
        .values(
            state=STARTED,
            attempt=runs.c.attempt + 1,
            spent=runs.c.spent + 1,
            lease_owner=owner,
            lease_until=now + timedelta(seconds=lease_seconds),
            rung_at=None,
            held=False,
            started_at=literal(now, runs.c.started_at.type) if alone else None,
        )
        .returning(*_CLAIMED)
    ).mappings()
    claimed = {row["id"]: Run(**row, owner=owner, claimed_at=now) for row in taken}
    ours = [claimed[run_id] for run_id in dict.fromkeys(run_ids) if run_id in claimed]
    for run, following in pairwise(ours):
        run.successor = following
    if ours and not alone:
        session.execute(update(runs).where(runs.c.id == ours[0].id).values(started_at=now))
    if ours and alone:
        _show(session, ours[0], STARTED, None)
    return ours


_CLAIMED = (
    runs.c.id,
    runs.c.task,
    runs.c.args,
    runs.c.subject,
    runs.c.tenant,
    runs.c.priority,
    runs.c.group_key,
    runs.c.coalesce_key,
    runs.c.attempt,
    runs.c.spent,
    runs.c.snoozes,
)


def retry(session: Session, run: Run, error: RunError, *, outcome: str, delay_seconds: float) -> None:
    """Make the run due again after `delay_seconds`, keeping the reason; raises LeaseLost.

    `outcome` is the attempt's: `retry`, `ambiguous`, or `snoozed` (which spends no attempt). A
    snooze that brings no evidence asked nobody anything: it is counted in the run and leaves no
    row, or what waits for a dead destination would fill the database with its waiting.
    """
    now = terms_of(session).now()
    code, detail = _explained(error)
    due_at = now + timedelta(seconds=delay_seconds)
    values = {
        "due_at": due_at,
        "error_code": code,
        "error_detail": detail,
    }
    if outcome == "snoozed":
        values |= {"spent": run.spent - 1}
        if not error.evidence:
            values |= {"snoozes": run.snoozes + 1}
    _due_again(session, run, RETRY, now, values)
    if "snoozes" not in values:
        _record(
            session, run, outcome, now, error_code=code, error_detail=detail, next_due_at=due_at,
            evidence=error.evidence or None,
        )  # fmt: skip
    _start_successor(session, run, now)
    _show(session, run, run.outcome or RETRY, run.result if run.outcome == SUCCESS else code)


def park(session: Session, run: Run, error: RunError) -> None:
    """End the run as a dead letter, with its reason; raises LeaseLost."""
    now = terms_of(session).now()
    code, detail = _explained(error)
    _move(session, run, FAILURE, finished_at=now, error_code=code, error_detail=detail)
    _record(
        session, run, "failure", now, error_code=code, error_detail=detail, evidence=error.evidence or None
    )
    _start_successor(session, run, now)
    _show(session, run, FAILURE, code)


def give_back(session: Session, given: Sequence[Run]) -> None:
    """Return the runs of a bundle that were not begun; they spend nothing and ring alone."""
    now = terms_of(session).now()
    for run in given:
        _due_again(session, run, PENDING, now, unbegun(run))


def unbegun(run: Run | Row[Any]) -> dict[str, Any]:
    """Return what a claim changed and nothing followed: uncharged, counted as a snooze."""
    return {"spent": run.spent - 1, "snoozes": run.snoozes + 1, "started_at": None}


def counted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a move says of counts: it holds, too, when the run ends merged instead."""
    return {name: values[name] for name in ("spent", "snoozes") if name in values}


def wake(session: Session, results: Mapping[str, Any]) -> set[str]:
    """End waiting runs as SUCCESS; `results` maps run id to result. Return those that waited."""
    if not results:
        return set()
    now = terms_of(session).now()
    waiting = session.execute(
        select(runs.c.id, runs.c.priority)
        .where(runs.c.id.in_(results), runs.c.state == WAITING)
        .order_by(runs.c.id)  # two wakers lock in one order
        .with_for_update()  # or a cancel between these two statements would be reported as woken
    ).all()
    if not waiting:
        return set()
    session.execute(
        update(runs)
        .where(runs.c.id == bindparam("run_id"), runs.c.state == WAITING)
        .values(state=SUCCESS, result=bindparam("outcome"), waiting_for=None, finished_at=now),
        [{"run_id": run_id, "outcome": results[run_id]} for run_id, _ in waiting],
    )
    shown = outbox_of(session).shown
    shown += [Shown(run_id, SUCCESS, results[run_id]) for run_id, level in waiting if level == INTERACTIVE]
    return {run_id for run_id, _ in waiting}


def cancel(session: Session, run_id: str, on_dead: Callable[[str], OnDead | None] | None = None) -> bool:
    """End a run that has not begun, or waits, as REVOKED; False when it is too late.

    `on_dead` looks up a task's burial by the task's name (`task.burials`); it is called in
    this transaction with the code `cancelled`, and what it raises is the caller's.
    A STARTED run is left alone: its effect may be out already, and it records it.
    """
    now = terms_of(session).now()
    cancelled = session.execute(
        update(runs)
        .where(runs.c.id == run_id, runs.c.state.in_((PENDING, RETRY, WAITING)))
        .values(
            state=REVOKED,
            **UNLEASED,
            waiting_for=None,
            finished_at=now,
            error_code=CANCELLED.code,
            error_detail=CANCELLED.detail,
        )
        .returning(*_CLAIMED)
    ).mappings().one_or_none()  # fmt: skip
    if cancelled is None:
        return False
    run = Run(**cancelled, owner="", claimed_at=now, outcome=REVOKED)
    _show(session, run, REVOKED, CANCELLED.code)
    bury = on_dead(run.task) if on_dead is not None else None
    if bury is not None:
        bury(session, run, CANCELLED)
    return True


CANCELLED = Permanent("cancelled", "a person cancelled it before it began")


def unring(session: Session, run_ids: Sequence[str]) -> None:
    """Take back the mark that a bell was rung, for bells that certainly or perhaps were not."""
    session.execute(update(runs).where(runs.c.id.in_(run_ids), RUNG).values(rung_at=None))


def record_attempt(session: Session, **values: Any) -> None:
    """Write one row of history."""
    session.execute(_INSERT_ATTEMPT, values)


def _due_again(session: Session, run: Run, state: str, now: datetime, values: Mapping[str, Any]) -> None:
    """Move to RETRY or PENDING; a coalesced run whose successor already waits is merged into it."""
    if run.coalesce_key is None:
        _move(session, run, state, **values)
        return
    try:
        with session.begin_nested():
            _move(session, run, state, **values)
    except IntegrityError:
        run.result = {"merged_into": successor_of(session, run.coalesce_key)}
        _move(session, run, SUCCESS, result=run.result, finished_at=now, **counted(values))


def successor_of(session: Session, coalesce_key: str) -> str | None:
    """Return the unclaimed run that holds a coalescing key, if there is one."""
    found: str | None = session.execute(
        select(runs.c.id).where(runs.c.coalesce_key == coalesce_key, CLAIMABLE)
    ).scalar_one_or_none()
    return found


def _explained(error: RunError) -> tuple[str, str]:
    """Return code and detail as the columns take them (PostgreSQL's text has no NUL)."""
    return error.code[:MAX_CODE], error.detail.replace("\x00", "")[:MAX_DETAIL]


def _move(session: Session, run: Run, state: str, **values: Any) -> None:
    crash_point("settle.before_commit")
    moved = session.execute(
        _UPDATE_STARTED, {"started": run.id, "fence": run.attempt, "state": state, **UNLEASED, **values}
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]  # CursorResult, by construction
        raise LeaseLost(f"run {run.id}, attempt {run.attempt}: the lease is somebody else's")
    run.outcome = state


def _record(session: Session, run: Run, outcome: str, now: datetime, **values: Any) -> None:
    record_attempt(
        session,
        run_id=run.id,
        number=run.number,
        owner=run.owner,
        started_at=run.claimed_at,
        finished_at=now,
        outcome=outcome,
        **values,
    )


def _start_successor(session: Session, run: Run, now: datetime) -> None:
    # Of a bundle only the run that had begun is charged when the process dies.
    following = run.successor
    if following is None:
        return
    following.claimed_at = now
    begun = session.execute(
        _START_UNPAUSED, {"started": following.id, "fence": following.attempt, "started_at": now}
    )
    following.is_refused = begun.rowcount != 1  # type: ignore[attr-defined]  # CursorResult, by construction


def _show(session: Session, run: Run, state: str, result: Any) -> None:
    if run.priority == INTERACTIVE:
        outbox_of(session).shown.append(Shown(run.id, state, result))
