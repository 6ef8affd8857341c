# SPDX-License-Identifier: Apache-2.0
"""Status lists: indices given out by a random permutation, once, however many writers there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from conferral.domain import credential
from conferral.store.records import Record
from conferral.store.tables import credentials, signed_documents, status_lists

SET_STATES = {
    "revocation": (credential.REVOKED, credential.SUPERSEDED, credential.ERASED),
    "suspension": (
        credential.REVOKED,
        credential.SUPERSEDED,
        credential.ERASED,
        credential.SUSPENDED,
    ),
}


def add(session: Session, **values: Any) -> int:
    """Insert a list; return its public number."""
    number: int = session.execute(
        insert(status_lists).values(**values).returning(status_lists.c.number)
    ).scalar_one()
    return number


def with_room(session: Session, organisation_id: str, mode: str, purpose: str) -> Record | None:
    """Return (number, next, size) of the oldest list that has an index left."""
    return session.execute(
        select(status_lists.c.number, status_lists.c.next, status_lists.c.size)
        .where(
            status_lists.c.organisation_id == organisation_id,
            status_lists.c.mode == mode,
            status_lists.c.purpose == purpose,
            status_lists.c.next < status_lists.c.size,
        )
        .order_by(status_lists.c.number)
        .limit(1)
    ).one_or_none()


def allocate(session: Session, number: int, count: int) -> int | None:
    """Take `count` positions of a list; return the first, or None when they are not left."""
    after: int | None = session.execute(
        update(status_lists)
        .where(status_lists.c.number == number, status_lists.c.next + count <= status_lists.c.size)
        .values(next=status_lists.c.next + count)
        .returning(status_lists.c.next)
    ).scalar_one_or_none()
    return None if after is None else after - count


def permutation(session: Session, number: int) -> bytes:
    """Return the order in which a list's indices are given out; it never changes."""
    found: bytes = session.execute(
        select(status_lists.c.permutation).where(status_lists.c.number == number)
    ).scalar_one()
    return found


def served(session: Session, number: int) -> Record | None:
    """Return (signed, etag, signed_at, version, organisation_id, mode, purpose) of a list."""
    return session.execute(
        select(
            status_lists.c.signed,
            status_lists.c.etag,
            status_lists.c.signed_at,
            status_lists.c.version,
            status_lists.c.organisation_id,
            status_lists.c.mode,
            status_lists.c.purpose,
        ).where(status_lists.c.number == number)
    ).one_or_none()


def purpose_of(session: Session, number: int) -> str:
    """Return what a set bit of a list means."""
    found: str = session.execute(
        select(status_lists.c.purpose).where(status_lists.c.number == number)
    ).scalar_one()
    return found


def signed_at(session: Session, numbers: Collection[int]) -> Sequence[tuple[int, datetime | None]]:
    """Return (number, when it was signed last) of lists in the order of their numbers."""
    found = session.execute(
        select(status_lists.c.number, status_lists.c.signed_at)
        .where(status_lists.c.number.in_(set(numbers)))
        .order_by(status_lists.c.number)
    )
    return [(row.number, row.signed_at) for row in found]


def set_indices(session: Session, number: int, purpose: str) -> Sequence[int]:
    """Return the indices whose credentials are withdrawn: the list is a projection of rows."""
    documents = signed_documents
    return session.execute(
        select(credentials.c.status_index).where(
            credentials.c.status_list_number == number, credentials.c.state.in_(SET_STATES[purpose])
        ).union_all(
            select(documents.c.status_index).where(
                documents.c.status_list_number == number, documents.c.revoked_at.is_not(None)
            )
        )
    ).scalars().all()  # fmt: skip


def record_signed(session: Session, number: int, version: int, **values: Any) -> bool:
    """Store newly signed bytes, unless somebody signed this version's successor first."""
    moved = session.execute(
        update(status_lists)
        .where(status_lists.c.number == number, status_lists.c.version == version)
        .values(version=version + 1, **values)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def overdue(session: Session, before: datetime) -> Sequence[int]:
    """Return the lists that were last signed before a time, or never."""
    return session.execute(
        select(status_lists.c.number).where(
            (status_lists.c.signed_at < before) | status_lists.c.signed_at.is_(None)
        )
    ).scalars().all()  # fmt: skip


def changed_between(
    session: Session, since: datetime, until: datetime
) -> Sequence[tuple[int, datetime | None, datetime]]:
    """Return (number, signed at, newest change) of the lists in which something changed in a span of time."""
    newest = func.max(credentials.c.status_changed_at)
    found = session.execute(
        select(status_lists.c.number, status_lists.c.signed_at, newest.label("changed_at"))
        .join(credentials, credentials.c.status_list_number == status_lists.c.number)
        .where(credentials.c.status_changed_at >= since, credentials.c.status_changed_at < until)
        .group_by(status_lists.c.number, status_lists.c.signed_at)
        .order_by(status_lists.c.number)
    )
    return [(row.number, row.signed_at, row.changed_at) for row in found]
