# SPDX-License-Identifier: Apache-2.0
"""What the audit reads of deliveries, events and endpoints; never an address."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conferral.reliable.tables import runs
from conferral.store.records import Record
from conferral.store.tables import credentials, deliveries, endpoints, events, mailbox


def deliveries_of(session: Session, ids: Sequence[str]) -> Sequence[Record]:
    """Return deliveries with the state of their runs."""
    return session.execute(
        select(
            deliveries.c.id,
            deliveries.c.channel,
            deliveries.c.kind,
            deliveries.c.revision,
            deliveries.c.credential_id,
            deliveries.c.run_id,
            deliveries.c.message_id,
            deliveries.c.state,
            runs.c.state.label("run_state"),
        )
        .outerjoin(runs, runs.c.id == deliveries.c.run_id)
        .where(deliveries.c.id.in_(ids))
        .order_by(deliveries.c.id)
    ).all()


def events_of(session: Session, ids: Sequence[str]) -> Sequence[Record]:
    """Return events with their bodies."""
    return session.execute(select(events).where(events.c.id.in_(ids)).order_by(events.c.id)).all()


def deliveries_of_events(session: Session, event_ids: Sequence[str]) -> Sequence[Record]:
    """Return (id, event_id, endpoint_id) of the deliveries of events."""
    return session.execute(
        select(deliveries.c.id, deliveries.c.event_id, deliveries.c.endpoint_id).where(
            deliveries.c.event_id.in_(event_ids)
        )
    ).all()


def endpoints_of(session: Session, organisation_ids: Sequence[str]) -> Sequence[Record]:
    """Return the endpoints of organisations, without their secrets."""
    return session.execute(
        select(
            endpoints.c.id,
            endpoints.c.organisation_id,
            endpoints.c.mode,
            endpoints.c.event_types,
            endpoints.c.state,
            endpoints.c.created_at,
        ).where(endpoints.c.organisation_id.in_(organisation_ids))
    ).all()


def recipients_of(session: Session, ids: Sequence[str]) -> Sequence[Record]:
    """Return (id, state, send_email) of credentials."""
    return session.execute(
        select(credentials.c.id, credentials.c.state, credentials.c.send_email)
        .where(credentials.c.id.in_(ids))
        .order_by(credentials.c.id)
    ).all()


def mails_of(session: Session, credential_ids: Sequence[str]) -> Sequence[Record]:
    """Return (credential_id, kind, revision) of the e-mails about credentials."""
    return session.execute(
        select(deliveries.c.credential_id, deliveries.c.kind, deliveries.c.revision).where(
            deliveries.c.credential_id.in_(credential_ids), deliveries.c.channel == "email"
        )
    ).all()


def events_of_credentials(session: Session, credential_ids: Sequence[str]) -> Sequence[Record]:
    """Return (credential_id, type, sequence) of the events of credentials, in order."""
    return session.execute(
        select(events.c.credential_id, events.c.type, events.c.sequence)
        .where(events.c.credential_id.in_(credential_ids))
        .order_by(events.c.credential_id, events.c.sequence)
    ).all()


def captured_again(session: Session) -> Sequence[Record]:
    """Return (delivery_id, source) of captured messages of which there are several."""
    several = select(mailbox.c.delivery_id).group_by(mailbox.c.delivery_id).having(func.count() > 1)
    return session.execute(
        select(mailbox.c.delivery_id, mailbox.c.source).where(mailbox.c.delivery_id.in_(several))
    ).all()


def captured_under_another_id(session: Session) -> Sequence[Record]:
    """Return (delivery_id, message_id) of captured messages that are not named as their delivery is."""
    return session.execute(
        select(mailbox.c.delivery_id, mailbox.c.message_id)
        .join(deliveries, deliveries.c.id == mailbox.c.delivery_id)
        .where(mailbox.c.message_id != deliveries.c.message_id)
    ).all()
