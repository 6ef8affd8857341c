# SPDX-License-Identifier: Apache-2.0
"""Batches and their rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from conferral.store.records import Record
from conferral.store.tables import batch_rows, batches


def add(session: Session, rows: Sequence[dict[str, Any]], **values: Any) -> None:
    """Insert a batch with its rows: each {"number", "content"}."""
    session.execute(insert(batches).values(**values))
    session.execute(insert(batch_rows), [{"batch_id": values["id"], **row} for row in rows])


def batch(session: Session, organisation_id: str, batch_id: str) -> Record | None:
    """Return a batch of an organisation."""
    return session.execute(
        select(batches).where(batches.c.id == batch_id, batches.c.organisation_id == organisation_id)
    ).one_or_none()


def for_expanding(session: Session, batch_id: str) -> Record | None:
    """Return a batch by id alone, for the run that expands it."""
    return session.execute(select(batches).where(batches.c.id == batch_id)).one_or_none()


def rows(session: Session, batch_id: str, after: int, limit: int) -> Sequence[Record]:
    """Return rows with a number above `after`, in order."""
    return session.execute(
        select(batch_rows.c.number, batch_rows.c.content)
        .where(batch_rows.c.batch_id == batch_id, batch_rows.c.number > after)
        .order_by(batch_rows.c.number)
        .limit(limit)
    ).all()


def complete(session: Session, batch_id: str, now: datetime) -> bool:
    """Move running → completed; False if it is not running."""
    moved = session.execute(
        update(batches)
        .where(batches.c.id == batch_id, batches.c.state == "running")
        .values(state="completed", completed_at=now)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def page(session: Session, organisation_id: str, limit: int) -> Sequence[Record]:
    """Return batches, newest first."""
    return session.execute(
        select(batches)
        .where(batches.c.organisation_id == organisation_id)
        .order_by(batches.c.created_at.desc(), batches.c.id.desc())
        .limit(limit)
    ).all()
