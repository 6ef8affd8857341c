# SPDX-License-Identifier: Apache-2.0
"""The sealed audit trail: what has no seal yet, blocks, seals. What was sealed is never updated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Table, and_, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or  # compiles for SQLite, too
from sqlalchemy.orm import Session

from conferral.domain.audit_trail import AUDIT_LOG
from conferral.reliable.tables import attempts
from conferral.store.records import Record
from conferral.store.tables import audit_blocks, audit_log, audit_seals

_ATTEMPT = [column for column in attempts.c if column.name != "evidence"]
_OF_ATTEMPT = and_(audit_seals.c.run_id == attempts.c.run_id, audit_seals.c.number == attempts.c.number)
_OF_LINE = and_(audit_seals.c.run_id == AUDIT_LOG, audit_seals.c.number == audit_log.c.id)


def last_block(session: Session) -> Record | None:
    """Return the newest block."""
    return session.execute(
        select(audit_blocks).order_by(audit_blocks.c.number.desc()).limit(1)
    ).one_or_none()  # fmt: skip


def unsealed_attempts(session: Session, since: datetime | None, limit: int) -> Sequence[Record]:
    """Return attempts without a seal that ended since a time, oldest first."""
    statement = select(*_ATTEMPT).where(_block_of(_OF_ATTEMPT, attempts).is_(None))
    if since is not None:
        statement = statement.where(attempts.c.finished_at >= since)
    return session.execute(statement.order_by(attempts.c.finished_at).limit(limit)).all()


def unsealed_lines(session: Session, since: datetime | None, limit: int) -> Sequence[Record]:
    """Return lines of the audit log without a seal that were written since a time, oldest first."""
    statement = select(audit_log).where(_block_of(_OF_LINE, audit_log).is_(None))
    if since is not None:
        statement = statement.where(audit_log.c.created_at >= since)
    return session.execute(statement.order_by(audit_log.c.created_at).limit(limit)).all()


def _block_of(is_its_seal: ColumnElement[bool], table: Table) -> ScalarSelect[int]:
    """Return a row's block, looked up by the seal's key.

    Not a join: PostgreSQL would read all seals there are (2 s for a million) to save a few thousand look-ups.
    """
    return select(audit_seals.c.block).where(is_its_seal).correlate(table).scalar_subquery()


def add_block(session: Session, seals: Sequence[dict[str, Any]], **values: Any) -> bool:
    """Insert a block with its seals; False when somebody else sealed the block of that number."""
    statement = insert_or(audit_blocks).values(**values)
    mine = session.execute(
        statement.on_conflict_do_nothing(index_elements=["number"]).returning(audit_blocks.c.number)
    ).scalar_one_or_none()
    if mine is None:
        return False
    session.execute(insert(audit_seals), list(seals))
    return True


def seals_of(session: Session, after: int, through: int) -> Sequence[Record]:
    """Return the seals of blocks in (after, through] with their rows, in the order of the chain."""
    return session.execute(
        select(
            audit_seals.c.run_id.label("sealed_run"),
            audit_seals.c.number.label("sealed_number"),
            audit_seals.c.block,
            audit_seals.c.digest,
            audit_seals.c.forgotten_at,
            *(column.label(f"attempt_{column.name}") for column in _ATTEMPT),
            *(column.label(f"line_{column.name}") for column in audit_log.c),
        )
        .outerjoin(attempts, _OF_ATTEMPT)
        .outerjoin(audit_log, _OF_LINE)
        .where(audit_seals.c.block > after, audit_seals.c.block <= through)
        .order_by(audit_seals.c.block, audit_seals.c.position)
    ).all()


def never_sealed(session: Session, run_ids: Sequence[str], before: datetime) -> Sequence[Record]:
    """Return those attempts of runs that ended before a time and have no seal."""
    return session.execute(
        select(attempts.c.run_id, attempts.c.number)
        .outerjoin(audit_seals, _OF_ATTEMPT)
        .where(attempts.c.run_id.in_(run_ids), attempts.c.finished_at < before, audit_seals.c.block.is_(None))
    ).all()


def never_sealed_lines(session: Session, ids: Sequence[int], before: datetime) -> Sequence[int]:
    """Return those lines of the audit log that were written before a time and have no seal."""
    return session.execute(
        select(audit_log.c.id)
        .outerjoin(audit_seals, _OF_LINE)
        .where(audit_log.c.id.in_(ids), audit_log.c.created_at < before, audit_seals.c.block.is_(None))
    ).scalars().all()  # fmt: skip


def blocks_after(session: Session, number: int, limit: int) -> Sequence[Record]:
    """Return blocks in the order of the chain."""
    return session.execute(
        select(audit_blocks)
        .where(audit_blocks.c.number > number)
        .order_by(audit_blocks.c.number)
        .limit(limit)
    ).all()
