# SPDX-License-Identifier: Apache-2.0
"""A7 and A2 for what is told: deliveries, events, and by credential whether anybody was forgotten."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from conferral.domain import audit_deliveries
from conferral.domain.audit import Deviation
from conferral.services.auditing.looking import Audit, Finding
from conferral.store import tables
from conferral.store.queries import auditing_deliveries as told
from conferral.store.records import Record


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at every delivery; then, for A7, at every event and at whom each credential's owner was told."""

    def judge_deliveries(ids: Sequence[str]) -> Iterator[Deviation]:
        with audit.rt.database.snapshot() as session:
            rows = told.deliveries_of(session, ids)
        for row in rows:
            yield from audit_deliveries.judge_delivery(row)

    yield from audit.through("deliveries", tables.deliveries.c.id, judge_deliveries)
    if audit.wants("A7"):
        yield from audit.through("events", tables.events.c.id, _events(audit))
        yield from audit.through("recipients", tables.credentials.c.id, _recipients(audit))
        yield from audit.confirmed(lambda _: _copies(audit), ("",))


def _events(audit: Audit) -> Any:
    def judge(ids: Sequence[str]) -> Iterator[Deviation]:
        with audit.rt.database.still() as session:
            events = told.events_of(session, ids)
            deliveries = _by(told.deliveries_of_events(session, ids), "event_id")
            owners = {event.organisation_id for event in events}
            endpoints = told.endpoints_of(session, sorted(owners))
        for event in events:
            mine = [
                one
                for one in endpoints
                if (one.organisation_id, one.mode) == (event.organisation_id, event.mode)
            ]
            yield from audit_deliveries.judge_event(event, deliveries[event.id], mine)

    return judge


def _recipients(audit: Audit) -> Any:
    def judge(ids: Sequence[str]) -> Iterator[Deviation]:
        with audit.rt.database.still() as session:
            rows = told.recipients_of(session, ids)
            mails = _by(told.mails_of(session, ids), "credential_id")
            events = _by(told.events_of_credentials(session, ids), "credential_id")
        for row in rows:
            yield from audit_deliveries.judge_told(row, mails[row.id], events[row.id])

    return judge


def _copies(audit: Audit) -> Iterator[Deviation]:
    """Compare what was captured twice: a repeated e-mail has the same bytes, and its own Message-ID."""
    with audit.rt.database.still() as session:
        repeated: dict[str, set[bytes]] = defaultdict(set)
        for row in told.captured_again(session):
            repeated[row.delivery_id].add(hashlib.sha256(row.source).digest())
        foreign = told.captured_under_another_id(session)
    for delivery_id in sorted(one for one, sources in repeated.items() if len(sources) > 1):
        yield Deviation("A7", delivery_id, "was sent twice with different bytes")
    for row in foreign:
        yield Deviation("A7", row.delivery_id, f"was captured with Message-ID {row.message_id}, not its own")


def _by(rows: Sequence[Record], name: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for row in rows:
        found[getattr(row, name)].append(row)
    return found
