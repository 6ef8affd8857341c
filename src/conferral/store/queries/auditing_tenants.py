# SPDX-License-Identifier: Apache-2.0
"""Rows that refer to rows of another organisation or mode: there should be none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session

from conferral.reliable.tables import runs
from conferral.store.tables import (
    batches,
    credentials,
    deliveries,
    endpoints,
    events,
    mailbox,
    status_lists,
    template_versions,
    templates,
)

_predecessors = credentials.alias("predecessors")


def of_credentials(session: Session, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return (credential, what of another organisation it refers to)."""
    mine = credentials.c.id.in_(ids)
    version = template_versions.c.id == credentials.c.template_version_id
    template = templates.c.id == template_versions.c.template_id
    return _wrong(
        session,
        {
            "template": select(credentials.c.id)
            .join(template_versions, version)
            .join(templates, template)
            .where(mine, templates.c.organisation_id != credentials.c.organisation_id),
            "batch": select(credentials.c.id)
            .join(batches, batches.c.id == credentials.c.batch_id)
            .where(mine, _differ(batches, credentials)),
            "status list": select(credentials.c.id)
            .join(status_lists, status_lists.c.number == credentials.c.status_list_number)
            .where(mine, _differ(status_lists, credentials)),
            "predecessor": select(credentials.c.id)
            .join(_predecessors, _predecessors.c.id == credentials.c.supersedes)
            .where(mine, _differ(_predecessors, credentials)),
        },
    )


def of_deliveries(session: Session, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return (delivery, what of another organisation it refers to)."""
    mine = deliveries.c.id.in_(ids)
    return _wrong(
        session,
        {
            "credential": select(deliveries.c.id)
            .join(credentials, credentials.c.id == deliveries.c.credential_id)
            .where(mine, _differ(credentials, deliveries)),
            "event": select(deliveries.c.id)
            .join(events, events.c.id == deliveries.c.event_id)
            .where(mine, _differ(events, deliveries)),
            "endpoint": select(deliveries.c.id)
            .join(endpoints, endpoints.c.id == deliveries.c.endpoint_id)
            .where(mine, _differ(endpoints, deliveries)),
        },
    )


def of_events(session: Session, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return (event, what of another organisation it refers to)."""
    about = select(events.c.id).join(credentials, credentials.c.id == events.c.credential_id)
    return _wrong(session, {"credential": about.where(events.c.id.in_(ids), _differ(credentials, events))})


def of_runs(session: Session, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return (run, what of another organisation it refers to); a run of nobody has no organisation."""
    about = select(runs.c.id).join(credentials, credentials.c.id == runs.c.subject)
    is_foreign = and_(runs.c.tenant != "", runs.c.tenant != credentials.c.organisation_id)
    return _wrong(session, {"credential": about.where(runs.c.id.in_(ids), is_foreign)})


def of_messages(session: Session, ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return (captured message, what of another organisation it refers to)."""
    about = select(mailbox.c.id).join(deliveries, deliveries.c.id == mailbox.c.delivery_id)
    is_foreign = mailbox.c.organisation_id != deliveries.c.organisation_id
    return _wrong(session, {"delivery": about.where(mailbox.c.id.in_(ids), is_foreign)})


def _differ(one: Any, other: Any) -> ColumnElement[bool]:
    return or_(one.c.organisation_id != other.c.organisation_id, one.c.mode != other.c.mode)


def _wrong(session: Session, wanted: dict[str, Select[Any]]) -> list[tuple[str, str]]:
    return [(key, name) for name, statement in wanted.items() for key in session.execute(statement).scalars()]
