# SPDX-License-Identifier: Apache-2.0
"""Pause and resume a queue or a group: what is paused is neither rung nor claimed.

A run that has begun goes on; nothing new begins once the pause is committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert  # compiles for SQLite, too (see promises.py)
from sqlalchemy.orm import Session

from conferral.reliable.outbox import terms_of
from conferral.reliable.tables import pauses

Scope = Literal["queue", "group"]


@dataclass(frozen=True, slots=True)
class Paused:
    """What is paused now."""

    queues: frozenset[str]
    groups: frozenset[str]


def pause(session: Session, scope: Scope, name: str) -> bool:
    """Pause a queue or a group; return whether it was not paused before."""
    now = terms_of(session).now()
    inserted = session.execute(
        insert(pauses).values(scope=scope, name=name, since=now).on_conflict_do_nothing()
        .returning(pauses.c.name)
    ).first()  # fmt: skip
    return inserted is not None


def resume(session: Session, scope: Scope, name: str) -> bool:
    """End a pause; return whether there was one. The dispatcher rings what waited."""
    deleted = session.execute(
        delete(pauses).where(pauses.c.scope == scope, pauses.c.name == name).returning(pauses.c.name)
    ).first()
    return deleted is not None


def paused(session: Session) -> Paused:
    """Return everything that is paused."""
    found = session.execute(select(pauses.c.scope, pauses.c.name)).all()
    return Paused(
        queues=frozenset(name for scope, name in found if scope == "queue"),
        groups=frozenset(name for scope, name in found if scope == "group"),
    )
