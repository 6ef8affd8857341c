# SPDX-License-Identifier: Apache-2.0
"""Pause and resume a queue or a group: what is paused is neither rung nor claimed.

A run that has begun goes on; nothing new begins once the pause is committed: the claim looks.
The runs of a paused group are then marked as `held`, some thousand a transaction, so that they
leave the index of what is due: a pass of the dispatcher does not step over 100,000 paused runs.
A resumed group stays in `pauses` until none of its runs is held, whoever dies in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert  # compiles for SQLite, too (see promises.py)
from sqlalchemy.orm import Session

from conferral.reliable.outbox import terms_of
from conferral.reliable.tables import CLAIMABLE, PENDING, RETRY, pauses, runs

Scope = Literal["queue", "group"]

MOVED_AT_ONCE = 2_000  # runs a transaction: some 50 ms of SQLite's one writer


@dataclass(frozen=True, slots=True)
class Paused:
    """What is paused now."""

    queues: frozenset[str]
    groups: frozenset[str]


def pause(session: Session, scope: Scope, name: str) -> bool:
    """Pause a queue or a group; return whether it was not paused before."""
    now = terms_of(session).now()
    inserted = session.execute(
        insert(pauses)
        .values(scope=scope, name=name, since=now)
        .on_conflict_do_update(
            index_elements=[pauses.c.scope, pauses.c.name],
            set_={"since": now, "resumed_at": None},
            where=pauses.c.resumed_at.is_not(None),
        )
        .returning(pauses.c.name)
    ).first()
    return inserted is not None


def resume(session: Session, scope: Scope, name: str) -> bool:
    """End a pause; return whether there was one. The dispatcher rings what waited."""
    this = (pauses.c.scope == scope, pauses.c.name == name, pauses.c.resumed_at.is_(None))
    if scope == "queue":
        return session.execute(delete(pauses).where(*this).returning(pauses.c.name)).first() is not None
    now = terms_of(session).now()
    ended = update(pauses).where(*this).values(resumed_at=now).returning(pauses.c.name)
    return session.execute(ended).first() is not None


def paused(session: Session) -> Paused:
    """Return everything that is paused."""
    found = session.execute(select(pauses.c.scope, pauses.c.name).where(pauses.c.resumed_at.is_(None))).all()
    return Paused(
        queues=frozenset(name for scope, name in found if scope == "queue"),
        groups=frozenset(name for scope, name in found if scope == "group"),
    )


def groups(session: Session) -> dict[str, bool]:
    """Return the groups whose runs may have to be moved: True when paused, False when just resumed."""
    found = session.execute(select(pauses.c.name, pauses.c.resumed_at).where(pauses.c.scope == "group"))
    return {row.name: row.resumed_at is None for row in found}


def move_group(session: Session, name: str, limit: int = MOVED_AT_ONCE) -> bool:
    """Hold runs of a paused group, or release those of a resumed one; return whether some are left.

    At most `limit` are moved; whoever asks again goes on where this ended. Both directions are
    one flag, so a run keeps its `due_at` and its place.
    """
    # Locked, so that a pause or resume in this instant comes before or after the whole step.
    group = session.execute(
        select(pauses.c.resumed_at).where(pauses.c.scope == "group", pauses.c.name == name).with_for_update()
    ).one_or_none()
    if group is None:
        return False
    hold = group.resumed_at is None
    left = limit
    for task in _tasks_of(session, name):
        for state in (PENDING, RETRY):
            if left > 0:
                left -= _move(session, (name, task, state), left, hold=hold)
    if left <= 0:
        return True
    if not hold and not _is_anything_held(session, name):
        session.execute(delete(pauses).where(pauses.c.scope == "group", pauses.c.name == name))
    return False


def _move(session: Session, of: tuple[str, str, str], limit: int, *, hold: bool) -> int:
    group, task, state = of
    these = (runs.c.group_key == group, runs.c.task == task, runs.c.state == state, runs.c.held.is_(not hold))
    # What somebody else is changing now is claimed, cancelled, or met again at the next pass. Two
    # statements: PostgreSQL may execute a subquery with LIMIT more than once, and move too many.
    chosen = select(runs.c.id).where(*these).limit(limit).with_for_update(skip_locked=True)
    ids = session.execute(chosen).scalars().all()
    if ids:
        session.execute(
            update(runs).where(runs.c.id.in_(ids), runs.c.state == state).values(held=hold, rung_at=None)
        )
    return len(ids)


def _tasks_of(session: Session, group: str) -> Iterator[str]:
    """Yield the tasks of a group: one probe each, not a scan of a batch."""
    first = select(func.min(runs.c.task)).where(runs.c.group_key == group)
    task = session.execute(first).scalar_one()
    while task is not None:
        yield task
        task = session.execute(first.where(runs.c.task > task)).scalar_one()


def _is_anything_held(session: Session, group: str) -> bool:
    held = select(runs.c.id).where(runs.c.group_key == group, CLAIMABLE, runs.c.held.is_(True)).limit(1)
    return session.execute(held).first() is not None
