# SPDX-License-Identifier: Apache-2.0
"""Pages of things, newest first, as API and console list them; always one organisation's.

Every function fetches one row more than asked for, so that the caller knows whether there is a
next page; none counts what it does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from conferral.reliable.tables import runs
from conferral.store.records import Record
from conferral.store.tables import (
    batches,
    credentials,
    deliveries,
    mailbox,
    template_versions,
    templates,
)
from conferral.store.tables.base import MODES

Place = tuple[datetime, str]
"""Where the page before ended: (created_at, id)."""


def credentials_page(
    session: Session,
    organisation_id: str,
    mode: str | None,
    *,
    wanted: dict[str, Any],
    before: Place | None,
    limit: int,
) -> Sequence[Record]:
    """Return credentials with their templates' names.

    Args:
        session: an open session.
        organisation_id: whose.
        mode: `live`, `test`, or None for both.
        wanted: any of `state`, `batch_id`, `external_id` (equal), `q` (part of the name or address,
            or an id), `updated_since` (aware UTC; created or issued since then),
            `task_state` and `error_code` (of the run that issues it).
        before: where the page before ended.
        limit: rows wanted; one more is fetched.
    """
    statement = _credentials().where(credentials.c.organisation_id == organisation_id)
    if mode is not None:
        statement = statement.where(credentials.c.mode == mode)
    statement = _narrowed(statement, wanted)
    return _page(session, statement, (credentials.c.created_at, credentials.c.id), before, limit)


def credential(session: Session, organisation_id: str, mode: str | None, credential_id: str) -> Record | None:
    """Return one credential with its template's name."""
    statement = _credentials().where(
        credentials.c.id == credential_id, credentials.c.organisation_id == organisation_id
    )
    if mode is not None:
        statement = statement.where(credentials.c.mode == mode)
    return session.execute(statement).one_or_none()


def batches_page(
    session: Session, organisation_id: str, mode: str | None, *, before: Place | None, limit: int
) -> Sequence[Record]:
    """Return batches."""
    statement = select(batches).where(batches.c.organisation_id == organisation_id)
    if mode is not None:
        statement = statement.where(batches.c.mode == mode)
    return _page(session, statement, (batches.c.created_at, batches.c.id), before, limit)


def messages_page(
    session: Session, organisation_id: str, mode: str | None, *, before: Place | None, limit: int
) -> Sequence[Record]:
    """Return captured messages without their source."""
    statement = _messages().where(mailbox.c.organisation_id == organisation_id)
    if mode is not None:
        statement = statement.where(deliveries.c.mode == mode)
    return _page(session, statement, (mailbox.c.received_at, mailbox.c.id), before, limit)


def message(session: Session, organisation_id: str, mode: str | None, message_id: str) -> Record | None:
    """Return one captured message with its source."""
    statement = (
        _messages()
        .add_columns(mailbox.c.source)
        .where(mailbox.c.id == message_id, mailbox.c.organisation_id == organisation_id)
    )
    if mode is not None:
        statement = statement.where(deliveries.c.mode == mode)
    return session.execute(statement).one_or_none()


def counts_since(session: Session, organisation_id: str, since: datetime) -> dict[str, int]:
    """Count an organisation's credentials: issued since a time, and requested since, by state."""
    issued = session.execute(
        select(func.count())
        .select_from(credentials)
        .where(credentials.c.organisation_id == organisation_id, credentials.c.issued_at >= since)
    ).scalar_one()
    found = session.execute(
        select(credentials.c.state, func.count())
        .where(
            credentials.c.organisation_id == organisation_id,
            credentials.c.mode.in_(MODES),
            credentials.c.created_at >= since,
        )
        .group_by(credentials.c.state)
    )
    requested = {row.state: int(row[1]) for row in found}
    return {
        "issued": int(issued),
        "requested": sum(requested.values()),
        "under_way": requested.get("queued", 0) + requested.get("issuing", 0),
        "failed": requested.get("failed", 0),
    }


def credential_modes(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """Return the mode of each credential among these ids."""
    found = session.execute(select(credentials.c.id, credentials.c.mode).where(credentials.c.id.in_(ids)))
    return {row.id: row.mode for row in found}


def recipient_names(session: Session, ids: Sequence[str]) -> dict[str, str]:
    """Return the recipient's name of each credential among these ids."""
    found = session.execute(
        select(credentials.c.id, credentials.c.recipient_name).where(credentials.c.id.in_(ids))
    )
    return {row.id: row.recipient_name for row in found}


def _page(
    session: Session,
    statement: Select[Any],
    order: tuple[ColumnElement[Any], ColumnElement[Any]],
    before: Place | None,
    limit: int,
) -> Sequence[Record]:
    moment, name = order
    if before is not None:
        at, last = before
        statement = statement.where((moment < at) | ((moment == at) & (name < last)))
    return session.execute(statement.order_by(moment.desc(), name.desc()).limit(limit + 1)).all()


def _narrowed(statement: Select[Any], wanted: dict[str, Any]) -> Select[Any]:
    for column in ("state", "batch_id", "external_id"):
        if wanted.get(column):
            statement = statement.where(credentials.c[column] == wanted[column])
    if wanted.get("updated_since"):
        since = wanted["updated_since"]
        statement = statement.where(or_(credentials.c.created_at >= since, credentials.c.issued_at >= since))
    if wanted.get("task_state") or wanted.get("error_code"):
        statement = statement.join(runs, runs.c.id == credentials.c.run_id)
    if wanted.get("task_state"):
        statement = statement.where(runs.c.state.in_(wanted["task_state"]))
    if wanted.get("error_code"):
        code = wanted["error_code"]
        statement = statement.where(or_(runs.c.error_code == code, credentials.c.failure_code == code))
    if wanted.get("q"):
        statement = statement.where(_matches(wanted["q"]))
    return statement


def _credentials() -> Select[Any]:
    return (
        select(credentials, templates.c.name.label("template_name"), templates.c.id.label("template_id"))
        .join(template_versions, template_versions.c.id == credentials.c.template_version_id)
        .join(templates, templates.c.id == template_versions.c.template_id)
    )


def _messages() -> Select[Any]:
    return select(
        mailbox.c.id,
        mailbox.c.delivery_id,
        mailbox.c.message_id,
        mailbox.c.recipient,
        mailbox.c.subject,
        mailbox.c.received_at,
        deliveries.c.mode,
        deliveries.c.kind,
        deliveries.c.credential_id,
    ).join(deliveries, deliveries.c.id == mailbox.c.delivery_id)


def _matches(text: str) -> ColumnElement[bool]:
    part = text.lower()  # autoescape: a percent sign that somebody typed is a percent sign
    return or_(
        credentials.c.id == text,
        credentials.c.external_id == text,
        func.lower(credentials.c.recipient_name).contains(part, autoescape=True),
        func.lower(credentials.c.recipient_email).contains(part, autoescape=True),
    )
