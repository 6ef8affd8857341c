# SPDX-License-Identifier: Apache-2.0
"""Documents that other software had signed over the VC-API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from conferral.reliable.tables import UtcDateTime
from conferral.store.records import Record
from conferral.store.tables import signed_documents


def add(session: Session, **values: Any) -> None:
    """Insert a document to be signed."""
    session.execute(insert(signed_documents).values(**values))


def one(session: Session, document_id: str) -> Record | None:
    """Return a document."""
    return session.execute(select(signed_documents).where(signed_documents.c.id == document_id)).one_or_none()


def record_signed(session: Session, document_id: str, *, signed: bytes, entry: bytes) -> bool:
    """Store the signed bytes once; False if they are stored already."""
    moved = session.execute(
        update(signed_documents)
        .where(signed_documents.c.id == document_id, signed_documents.c.entry.is_(None))
        .values(signed=signed, entry=entry)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def record_failed(session: Session, document_id: str, detail: str) -> None:
    """Say why a document was not signed."""
    session.execute(
        update(signed_documents).where(signed_documents.c.id == document_id).values(failure_detail=detail)
    )


def record_revoked(
    session: Session, organisation_id: str, mode: str, *, place: tuple[int, int], now: datetime
) -> bool:
    """Withdraw the document at a (list number, index); False if there is none. The first time counts."""
    documents = signed_documents
    moved = session.execute(
        update(documents)
        .where(
            documents.c.organisation_id == organisation_id,
            documents.c.mode == mode,
            documents.c.status_list_number == place[0],
            documents.c.status_index == place[1],
        )
        .values(revoked_at=func.coalesce(documents.c.revoked_at, bindparam("now", now, UtcDateTime)))
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def clear(session: Session, before: datetime) -> int:
    """Forget the content of older documents; what withdraws them stays. Return how many."""
    documents = signed_documents
    cleared = session.execute(
        update(documents)
        .where(
            documents.c.created_at < before,
            documents.c.unsigned.is_not(None) | documents.c.signed.is_not(None),
        )
        .values(unsigned=None, signed=None)
    )
    return int(cleared.rowcount)  # type: ignore[attr-defined]  # CursorResult, by construction
