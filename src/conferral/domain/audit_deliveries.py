# SPDX-License-Identifier: Apache-2.0
"""A7, and A2 for deliveries: each person and endpoint is told once, under one identity, of what happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from conferral.domain import credential, webhook_event
from conferral.domain.audit import Deviation

ENDPOINT_SETTLED: Final = timedelta(seconds=60)
"""An endpoint that was added so shortly before an event may have been committed after it."""

_GIVEN: Final = (credential.ISSUED, credential.REVOKED, credential.SUSPENDED, credential.SUPERSEDED)
_LIVE: Final = ("PENDING", "STARTED", "RETRY", "WAITING")
_RUN_OF: Final = {
    "pending": _LIVE,
    "sent": ("SUCCESS",),
    "failed": ("FAILURE", "REVOKED", *_LIVE),  # live: replayed, and not sent yet
    "held": ("FAILURE", "REVOKED", *_LIVE),
}
_FIRST_MAIL: Final = ("issued", "superseded")  # the successor of another credential says so in its mail
_ISSUED_EVENT: Final = "credential.issued"


def judge_delivery(row: Any) -> Iterator[Deviation]:
    """A2: a delivery's state is its run's; A7: an e-mail's Message-ID is made of what it is.

    Args:
        row: a delivery with `run_state`.
    """
    if row.run_state not in _RUN_OF[row.state]:
        state = row.run_state or "missing"
        yield _found("A2", row, f"({row.channel}) is {row.state}, and its run {row.run_id} is {state}")
    if row.channel == "email" and row.credential_id is not None:
        wanted = f"<{row.credential_id}.{row.kind}.{row.revision}@"
        if not (row.message_id or "").startswith(wanted):
            yield _found("A7", row, f"has Message-ID {row.message_id}, which is not its own")


def judge_told(row: Any, mails: Sequence[Any], events: Sequence[Any]) -> Iterator[Deviation]:
    """A7: who was issued a credential was told once, and its events are numbered without a gap.

    Args:
        row: a credential.
        mails: its deliveries by e-mail: `kind`, `revision`.
        events: its events in order: `type`, `sequence`.
    """
    named = [(one.kind, one.revision) for one in mails]
    twice = sorted({one for one in named if named.count(one) > 1})
    for kind, revision in twice:
        yield _found("A7", row, f"has two e-mails {kind}.{revision}")
    numbers = [one.sequence for one in events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield _found("A7", row, f"has events numbered {', '.join(map(str, numbers))}")
    if row.state not in _GIVEN:
        return
    first = [one for one in named if one[0] in _FIRST_MAIL]
    if row.send_email and not first:
        yield _found("A7", row, f"is {row.state}, and no e-mail says that it was issued")
    issued = sum(1 for one in events if one.type == _ISSUED_EVENT)
    if issued != 1:
        yield _found("A7", row, f"has {issued} events {_ISSUED_EVENT}")


def judge_event(event: Any, deliveries: Sequence[Any], endpoints: Sequence[Any]) -> Iterator[Deviation]:
    """A7: an event's frozen body is its own, and every endpoint that was subscribed gets it.

    Args:
        event: a row of `events`.
        deliveries: its deliveries: `id`, `endpoint_id`.
        endpoints: those of its organisation and mode.
    """
    yield from _judge_body(event)
    if event.credential_id is None:
        return
    wanting = [one for one in endpoints if webhook_event.wants(one.event_types, event.type)]
    told = {one.endpoint_id for one in deliveries}
    for one in wanting:
        # One that is disabled now may have been disabled then.
        was_there = one.created_at < event.created_at - ENDPOINT_SETTLED
        if was_there and one.state == "enabled" and one.id not in told:
            yield _found("A7", event, f"({event.type}) was never promised to endpoint {one.id}")
    for delivery in deliveries:
        if delivery.endpoint_id in {one.id for one in endpoints} - {one.id for one in wanting}:
            yield _found("A7", event, f"({event.type}) goes to endpoint {delivery.endpoint_id}, unasked")


def _judge_body(event: Any) -> Iterator[Deviation]:
    try:
        body = json.loads(event.body)
        said = (body["type"], body["data"].get("credential_id"), body["data"].get("sequence"))
    except (ValueError, KeyError, TypeError, AttributeError):
        yield _found("A7", event, "has a body that is none")
        return
    wanted = (event.type, event.credential_id, event.sequence)
    is_its_own = said == wanted if event.credential_id is not None else said[0] == event.type
    if not is_its_own:
        yield _found("A7", event, "has a body that is another event's")


def _found(check: str, row: Any, text: str) -> Deviation:
    return Deviation(check, row.id, text, key=row.id)
