# SPDX-License-Identifier: Apache-2.0
"""Events, endpoints and deliveries: what is told to whom, each under one identity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or  # compiles for SQLite, too
from sqlalchemy.orm import Session

from conferral.store.records import Record
from conferral.store.tables import (
    answers,
    channels,
    deliveries,
    endpoints,
    events,
    suppressions,
)

PAGE = 200

# Built once: each mail and each webhook executes these, and building a statement costs more than that.
_DELIVERY = select(deliveries).where(deliveries.c.id == bindparam("wanted"))
_EVENT = select(events).where(events.c.id == bindparam("wanted"))
_ENDPOINT = select(endpoints).where(endpoints.c.id == bindparam("wanted"))
_CHANNEL = select(channels).where(channels.c.name == bindparam("wanted"))
_SUPPRESSION = select(suppressions.c.reason).where(
    suppressions.c.organisation_id == bindparam("organisation"),
    suppressions.c.address_hmac == bindparam("address"),
)
_MARK_SENT = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivered"))
    .values(
        state="sent",
        sent_at=bindparam("at"),
        possible_duplicate=bindparam("may_be_second"),
        failure_code=None,
    )
)


def add_events(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Insert events with their frozen bodies."""
    if rows:
        session.execute(insert(events), list(rows))


def last_sequences(session: Session, credential_ids: Sequence[str]) -> dict[str, int]:
    """Return the number of the last event of each credential that has one."""
    found = session.execute(
        select(events.c.credential_id, func.max(events.c.sequence))
        .where(events.c.credential_id.in_(credential_ids))
        .group_by(events.c.credential_id)
    )
    return {credential_id: last for credential_id, last in found if credential_id}


def events_page(
    session: Session, organisation_id: str, mode: str, *, after: tuple[datetime, str] | None, limit: int
) -> Sequence[Record]:
    """Return events, oldest first, after a (created_at, id) cursor."""
    statement = select(events).where(events.c.organisation_id == organisation_id, events.c.mode == mode)
    if after is not None:
        moment, last = after
        statement = statement.where(
            (events.c.created_at > moment) | ((events.c.created_at == moment) & (events.c.id > last))
        )
    return session.execute(statement.order_by(events.c.created_at, events.c.id).limit(min(limit, PAGE))).all()


def add_all(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Insert deliveries; a second one of the same identity is an error, not a double."""
    if rows:
        session.execute(insert(deliveries), list(rows))


def add_messages(session: Session, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Insert e-mails; return the ids of those whose Message-ID is new."""
    if not rows:
        return set()
    statement = insert_or(deliveries).on_conflict_do_nothing(index_elements=["message_id"])
    return set(session.execute(statement.returning(deliveries.c.id), list(rows)).scalars())


def last_revisions(session: Session, kind: str, credential_ids: Sequence[str]) -> dict[str, int]:
    """Return how often each credential's recipient was told this by e-mail, of those that were."""
    found = session.execute(
        select(deliveries.c.credential_id, func.max(deliveries.c.revision))
        .where(deliveries.c.credential_id.in_(credential_ids), deliveries.c.kind == kind)
        .group_by(deliveries.c.credential_id)
    )
    return {row.credential_id: row[1] for row in found}


def set_runs(session: Session, pairs: Sequence[tuple[str, str]]) -> None:
    """Name the runs that execute deliveries: (delivery id, run id)."""
    if pairs:
        session.execute(
            update(deliveries).where(deliveries.c.id == bindparam("one")).values(run_id=bindparam("run")),
            [{"one": delivery_id, "run": run_id} for delivery_id, run_id in pairs],
        )


def delivery(session: Session, delivery_id: str) -> Record | None:
    """Return a delivery."""
    return session.execute(_DELIVERY, {"wanted": delivery_id}).one_or_none()


def of_credential(session: Session, credential_id: str) -> Sequence[Record]:
    """Return a credential's deliveries, oldest first."""
    return session.execute(
        select(deliveries)
        .where(deliveries.c.credential_id == credential_id)
        .order_by(deliveries.c.created_at, deliveries.c.id)
    ).all()


def of_run(session: Session, run_id: str) -> Record | None:
    """Return the delivery that a run executes, if it executes one."""
    return session.execute(select(deliveries).where(deliveries.c.run_id == run_id)).one_or_none()


def mark_sent(session: Session, delivery_id: str, now: datetime, *, possible_duplicate: bool) -> None:
    """Record that the peer accepted it."""
    session.execute(_MARK_SENT, {"delivered": delivery_id, "at": now, "may_be_second": possible_duplicate})


def mark_failed(session: Session, delivery_id: str, state: str, code: str) -> None:
    """Record that it will not be tried again by itself (`failed`) or waits for a person (`held`)."""
    session.execute(
        update(deliveries)
        .where(deliveries.c.id == delivery_id, deliveries.c.state.in_(("pending", "failed", "held")))
        .values(state=state, failure_code=code)
    )


def arm(session: Session, delivery_id: str, attempt: int) -> None:
    """Record that this attempt is about to send the final dot."""
    session.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(armed_attempt=attempt))


def add_answer(session: Session, **values: Any) -> None:
    """Keep what an endpoint answered, beside the delivery."""
    session.execute(
        insert_or(answers).values(**values).on_conflict_do_nothing(index_elements=["delivery_id", "attempt"])
    )


def answers_of(session: Session, delivery_id: str) -> Sequence[Record]:
    """Return the answers to a delivery in order."""
    return session.execute(
        select(answers).where(answers.c.delivery_id == delivery_id).order_by(answers.c.attempt)
    ).all()


def add_endpoint(session: Session, **values: Any) -> None:
    """Insert an endpoint."""
    session.execute(insert(endpoints).values(**values))


def remove_endpoint(session: Session, organisation_id: str, endpoint_id: str) -> bool:
    """Disable an endpoint for good; its deliveries and history stay."""
    moved = session.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint_id, endpoints.c.organisation_id == organisation_id)
        .values(state="disabled")
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def endpoint(session: Session, endpoint_id: str) -> Record | None:
    """Return an endpoint."""
    return session.execute(_ENDPOINT, {"wanted": endpoint_id}).one_or_none()


def endpoints_of(session: Session, organisation_id: str, mode: str | None = None) -> Sequence[Record]:
    """Return an organisation's endpoints, oldest first."""
    statement = select(endpoints).where(endpoints.c.organisation_id == organisation_id)
    if mode is not None:
        statement = statement.where(endpoints.c.mode == mode)
    return session.execute(statement.order_by(endpoints.c.created_at, endpoints.c.id)).all()


def enabled_endpoints(session: Session, organisation_ids: Sequence[str]) -> Sequence[Record]:
    """Return (id, organisation_id, mode, event_types) of the endpoints that want events."""
    return session.execute(
        select(endpoints.c.id, endpoints.c.organisation_id, endpoints.c.mode, endpoints.c.event_types).where(
            endpoints.c.organisation_id.in_(organisation_ids), endpoints.c.state == "enabled"
        )
    ).all()


def set_breaker(session: Session, endpoint_id: str, **values: Any) -> None:
    """Write an endpoint's breaker; called only when it changes."""
    session.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))


def take_probe(session: Session, endpoint_id: str, seen: datetime, until: datetime) -> bool:
    """Choose the one run that probes a paused endpoint."""
    moved = session.execute(
        update(endpoints)
        .where(endpoints.c.id == endpoint_id, endpoints.c.closed_until == seen)
        .values(closed_until=until)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def channel(session: Session, name: str) -> Record | None:
    """Return a mail channel's breaker, if it ever failed."""
    return session.execute(_CHANNEL, {"wanted": name}).one_or_none()


def set_channel(session: Session, name: str, **values: Any) -> None:
    """Write a mail channel's breaker; called only when it changes."""
    session.execute(
        insert_or(channels)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )


def take_channel_probe(session: Session, name: str, seen: datetime, until: datetime) -> bool:
    """Choose the one run that probes a paused channel."""
    moved = session.execute(
        update(channels)
        .where(channels.c.name == name, channels.c.closed_until == seen)
        .values(closed_until=until)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def suppression(session: Session, organisation_id: str, address_hmac: bytes) -> str | None:
    """Return why this person wants, or can get, no mail from this organisation; None if nothing is known."""
    reason: str | None = session.execute(
        _SUPPRESSION, {"organisation": organisation_id, "address": address_hmac}
    ).scalar_one_or_none()
    return reason


def suppress(session: Session, organisation_id: str, address_hmac: bytes, reason: str, now: datetime) -> None:
    """Send this person no more mail from this organisation."""
    session.execute(
        insert_or(suppressions)
        .values(organisation_id=organisation_id, address_hmac=address_hmac, reason=reason, created_at=now)
        .on_conflict_do_nothing(index_elements=["organisation_id", "address_hmac"])
    )


def event(session: Session, event_id: str) -> Record | None:
    """Return an event with its frozen body."""
    return session.execute(_EVENT, {"wanted": event_id}).one_or_none()
