# SPDX-License-Identifier: Apache-2.0
"""The standing of issued credentials: revoked, suspended, reinstated, superseded; always compare-and-set.

Rows are locked in the order of their ids, so two changes of many never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from conferral.domain.credential import ERASED, FAILED
from conferral.store.records import Record
from conferral.store.tables import credentials, status_lists

_COLUMNS = (
    credentials.c.id.label("credential_id"),
    credentials.c.organisation_id,
    credentials.c.mode,
    credentials.c.state,
    credentials.c.batch_id,
    credentials.c.batch_row,
    credentials.c.external_id,
    credentials.c.token,
    credentials.c.send_email,
    credentials.c.recipient_email,
    credentials.c.recipient_locale,
    credentials.c.status_list_number,
    credentials.c.status_reason,
    credentials.c.status_changed_at,
    credentials.c.superseded_by,
    status_lists.c.purpose,
)


def locked(session: Session, organisation_id: str, mode: str, ids: Sequence[str]) -> Sequence[Record]:
    """Return credentials of an organisation and mode; their standing is nobody else's until the commit."""
    return session.execute(
        _standings()
        .where(
            credentials.c.id.in_(ids),
            credentials.c.organisation_id == organisation_id,
            credentials.c.mode == mode,
        )
        .order_by(credentials.c.id)
        .with_for_update(of=credentials)
    ).all()


def move(session: Session, ids: Sequence[str], sources: Sequence[str], **values: Any) -> set[str]:
    """Change the standing of those that are in one of the states; return which were."""
    moved = session.execute(
        update(credentials)
        .where(credentials.c.id.in_(ids), credentials.c.state.in_(sources))
        .values(**values)
        .returning(credentials.c.id)
    )
    return set(moved.scalars())


def batch_chunk(session: Session, batch_id: str, after_row: int, limit: int) -> Sequence[Record]:
    """Return (id, batch_row) of a batch's credentials with a row above `after_row`, in order."""
    return session.execute(
        select(credentials.c.id, credentials.c.batch_row)
        .where(credentials.c.batch_id == batch_id, credentials.c.batch_row > after_row)
        .order_by(credentials.c.batch_row)
        .limit(limit)
    ).all()


def batch_counts(session: Session, batch_id: str) -> Sequence[Record]:
    """Return (state, purpose, number) of a batch's credentials."""
    return session.execute(
        select(credentials.c.state, status_lists.c.purpose, func.count().label("number"))
        .join(status_lists, status_lists.c.number == credentials.c.status_list_number)
        .where(credentials.c.batch_id == batch_id)
        .group_by(credentials.c.state, status_lists.c.purpose)
        .order_by(credentials.c.state, status_lists.c.purpose)
    ).all()


def batch_lists(session: Session, batch_id: str) -> set[int]:
    """Return the status lists that a batch's credentials stand in."""
    return set(
        session.execute(
            select(credentials.c.status_list_number).where(credentials.c.batch_id == batch_id).distinct()
        ).scalars()
    )


def ids_of(session: Session, organisation_id: str, mode: str, named: Sequence[str]) -> dict[str, str]:
    """Return the credential id of each id or external id that names one."""
    rows = session.execute(
        select(credentials.c.id, credentials.c.external_id).where(
            credentials.c.organisation_id == organisation_id,
            credentials.c.mode == mode,
            credentials.c.id.in_(named) | credentials.c.external_id.in_(named),
        )
    ).all()
    by_external = {row.external_id: row.id for row in rows if row.external_id is not None}
    by_id = {row.id: row.id for row in rows}
    known = by_external | by_id
    return {name: known[name] for name in named if name in known}


def successor(session: Session, credential_id: str) -> Record | None:
    """Return the credential that replaces this one, or will when it is issued."""
    return session.execute(
        select(credentials).where(
            credentials.c.supersedes == credential_id, credentials.c.state.not_in((FAILED, ERASED))
        )
    ).one_or_none()


def _standings() -> Select[Any]:
    return select(*_COLUMNS).join(status_lists, status_lists.c.number == credentials.c.status_list_number)
