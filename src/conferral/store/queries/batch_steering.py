# SPDX-License-Identifier: Apache-2.0
"""What pausing, cancelling and retrying a batch needs to know, and what became of each of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from conferral.reliable.tables import FAILURE, PENDING, RETRY, REVOKED, STARTED, runs
from conferral.store.records import Record
from conferral.store.tables import batch_rows, batches, credentials


def move(session: Session, batch_id: str, states: Sequence[str], to: str) -> bool:
    """Move a batch from one of these states; False if it is in another."""
    moved = session.execute(
        update(batches).where(batches.c.id == batch_id, batches.c.state.in_(states)).values(state=to)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def locked_state(session: Session, batch_id: str) -> str | None:
    """Return a batch's state; it stays so until the end of this transaction."""
    found: str | None = session.execute(
        select(batches.c.state).where(batches.c.id == batch_id).with_for_update(read=True)
    ).scalar_one_or_none()
    return found


def unbegun(session: Session, batch_id: str, tasks: Sequence[str], limit: int) -> Sequence[str]:
    """Return runs of these tasks that nobody executes and nothing waits for."""
    return session.execute(
        select(runs.c.id)
        .where(runs.c.group_key == batch_id, runs.c.task.in_(tasks), runs.c.state.in_((PENDING, RETRY)))
        .limit(limit)
        .with_for_update()
    ).scalars().all()  # fmt: skip


def is_about_to_begin(session: Session, batch_id: str, task: str) -> bool:
    """Return whether runs of a task are claimed in a bundle, behind others, and have not begun."""
    mine = (runs.c.group_key == batch_id, runs.c.task == task, runs.c.state == STARTED)
    waiting = select(runs.c.id).where(*mine, runs.c.started_at.is_(None)).limit(1)
    return session.execute(waiting).first() is not None


def given_up(session: Session, batch_id: str, task: str, after: str, limit: int) -> Sequence[Record]:
    """Return (id, subject) of dead letters and cancelled runs of a task with an id above `after`."""
    ended = or_(runs.c.state == FAILURE, and_(runs.c.state == REVOKED, runs.c.error_code == "cancelled"))
    return session.execute(
        select(runs.c.id, runs.c.subject)
        .where(runs.c.group_key == batch_id, runs.c.task == task, ended, runs.c.id > after)
        .order_by(runs.c.id)
        .limit(limit)
    ).all()


def is_expanding(session: Session, batch_id: str, task: str) -> bool:
    """Return whether a run of this task is still to be executed, or under way."""
    live = (PENDING, RETRY, STARTED)
    return session.execute(
        select(runs.c.id)
        .where(runs.c.group_key == batch_id, runs.c.task == task, runs.c.state.in_(live))
        .limit(1)
    ).first() is not None  # fmt: skip


def results(session: Session, batch_id: str, after: int, limit: int) -> Sequence[Record]:
    """Return the next rows in order, each with the state and reason of its credential, if it has one."""
    mine = and_(
        credentials.c.batch_id == batch_rows.c.batch_id, credentials.c.batch_row == batch_rows.c.number
    )
    return session.execute(
        select(
            batch_rows.c.number,
            batch_rows.c.content,
            credentials.c.id,
            credentials.c.state,
            credentials.c.failure_code,
            credentials.c.failure_detail,
            credentials.c.token,
            credentials.c.issued_at,
        )
        .outerjoin(credentials, mine)
        .where(batch_rows.c.batch_id == batch_id, batch_rows.c.number > after)
        .order_by(batch_rows.c.number)
        .limit(limit)
    ).all()
