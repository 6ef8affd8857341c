# SPDX-License-Identifier: Apache-2.0
"""Reports, stored answers, the captured mailbox and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or  # compiles for SQLite, too
from sqlalchemy.orm import Session

from conferral.store.records import Record
from conferral.store.tables import audit_log, idempotency_keys, mailbox, reports

PAGE = 200


def add_report(session: Session, **values: Any) -> bool:
    """Insert a day's report; False if that day has one."""
    inserted = session.execute(
        insert_or(reports)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["organisation_id", "day"])
        .returning(reports.c.id)
    ).scalar_one_or_none()
    return inserted is not None


def report(session: Session, report_id: str) -> Record | None:
    """Return a report."""
    return session.execute(select(reports).where(reports.c.id == report_id)).one_or_none()


def reports_of(session: Session, organisation_id: str, limit: int = PAGE) -> Sequence[Record]:
    """Return an organisation's reports, newest day first."""
    return session.execute(
        select(reports)
        .where(reports.c.organisation_id == organisation_id)
        .order_by(reports.c.day.desc())
        .limit(limit)
    ).all()


def report_of_day(session: Session, organisation_id: str, day: date) -> Record | None:
    """Return the report of one day."""
    return session.execute(
        select(reports).where(reports.c.organisation_id == organisation_id, reports.c.day == day)
    ).one_or_none()


def stored_answer(
    session: Session, organisation_id: str, mode: str, operation: str, key: str
) -> Record | None:
    """Return the stored answer to an idempotent request."""
    return session.execute(
        select(idempotency_keys).where(
            idempotency_keys.c.organisation_id == organisation_id,
            idempotency_keys.c.mode == mode,
            idempotency_keys.c.operation == operation,
            idempotency_keys.c.key == key,
        )
    ).one_or_none()


def reserve_answer(session: Session, **values: Any) -> None:
    """Take a key, before its answer is known; a taken key is an IntegrityError."""
    session.execute(insert(idempotency_keys).values(status=0, headers={}, body=b"", **values))


def store_answer(session: Session, whose: tuple[str, str, str, str], **answer: Any) -> None:
    """Store the answer under a reserved key (organisation, mode, operation, key), in the same commit."""
    keys = idempotency_keys.c
    mine = (keys.organisation_id, keys.mode, keys.operation, keys.key)
    session.execute(
        update(idempotency_keys)
        .where(*(column == value for column, value in zip(mine, whose, strict=True)))
        .values(**answer)
    )


def purge_answers(session: Session, before: datetime) -> int:
    """Delete stored answers older than their promise; return how many."""
    deleted = session.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < before))
    return int(deleted.rowcount)  # type: ignore[attr-defined]  # CursorResult, by construction


def keep_message(session: Session, **values: Any) -> None:
    """Put a message into the captured mailbox."""
    session.execute(insert(mailbox).values(**values))


def messages(session: Session, organisation_id: str, limit: int = PAGE) -> Sequence[Record]:
    """Return captured messages without their source, newest first."""
    return session.execute(
        select(
            mailbox.c.id,
            mailbox.c.delivery_id,
            mailbox.c.message_id,
            mailbox.c.recipient,
            mailbox.c.subject,
            mailbox.c.received_at,
        )
        .where(mailbox.c.organisation_id == organisation_id)
        .order_by(mailbox.c.received_at.desc(), mailbox.c.id.desc())
        .limit(limit)
    ).all()


def message(session: Session, organisation_id: str, message_id: str) -> Record | None:
    """Return one captured message with its source, by our id for it."""
    return session.execute(
        select(mailbox).where(mailbox.c.id == message_id, mailbox.c.organisation_id == organisation_id)
    ).one_or_none()


def purge_messages(session: Session, before: datetime) -> int:
    """Delete old captured messages; return how many."""
    deleted = session.execute(delete(mailbox).where(mailbox.c.received_at < before))
    return int(deleted.rowcount)  # type: ignore[attr-defined]  # CursorResult, by construction


def audit(session: Session, **values: Any) -> None:
    """Write one line of who did what; ids only."""
    session.execute(insert(audit_log).values(**values))


def audit_all(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Write many lines of who did what."""
    if rows:
        session.execute(insert(audit_log), list(rows))
