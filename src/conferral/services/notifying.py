# SPDX-License-Identifier: Apache-2.0
"""Webhooks: an event has one id and one frozen body; each subscribed endpoint is one delivery.

An event's deliveries are promised in the commit that makes the event. Order is not promised:
`sequence` counts the events of a credential.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.adapters.sealing import open_sealed
from conferral.adapters.webhook_client import Answer, EndpointFailed, EndpointGone
from conferral.domain import webhook_event
from conferral.domain.breaker import Breaker, Limits
from conferral.reliable import destinations, status
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent, Retryable, Snooze
from conferral.reliable.promises import BULK, INTERACTIVE, Promise, promise_all
from conferral.reliable.recording import record
from conferral.reliable.runs import Run
from conferral.services.groups import GroupOf, batch_of
from conferral.services.runtime import Runtime
from conferral.store.queries import deliveries
from conferral.store.records import Record

TASK: Final = "tasks.webhooks.post_event"
API_VERSION: Final = "1"
BREAKER: Final = Limits(failures=10, first_seconds=60.0, longest_seconds=3600.0)
PROBE_SECONDS: Final = 60.0
GIVE_UP_AFTER: Final = timedelta(days=5)  # without a success: the endpoint is disabled
BUSY_SECONDS: Final = 5.0
FAILING: Final = "endpoint_failing"


def announce(
    rt: Runtime,
    session: Session,
    event_type: str,
    subjects: Sequence[Record],
    *,
    state: str,
    group_of: GroupOf = batch_of,
) -> None:
    """Make one event for each credential and promise its delivery to every endpoint that wants it."""
    if not subjects:
        return
    ids = {_credential_id(row): row for row in subjects}
    last = deliveries.last_sequences(session, list(ids))
    made = [
        _event(rt, event_type, row, sequence=last.get(credential_id, 0) + 1, state=state)
        for credential_id, row in ids.items()
    ]
    deliveries.add_events(session, made)
    groups = {credential_id: group_of(row) for credential_id, row in ids.items()}
    _promise_deliveries(rt, session, made, groups)


def _event(rt: Runtime, event_type: str, row: Record, *, sequence: int, state: str) -> dict[str, Any]:
    now = rt.database.now()
    credential_id = _credential_id(row)
    data = {
        "api_version": API_VERSION,
        "livemode": row.mode == "live",
        "organisation_id": row.organisation_id,
        "sequence": sequence,
        "credential_id": credential_id,
        "external_id": row.external_id,
        "state": state,
        "links": {
            "credential": rt.url(f"/v1/credentials/{credential_id}"),
            "page": rt.url(f"/c/{row.token}"),
        },
    }
    return {
        "id": rt.new_id("evt"),
        "organisation_id": row.organisation_id,
        "mode": row.mode,
        "type": event_type,
        "credential_id": credential_id,
        "sequence": sequence,
        "body": webhook_event.event_body(event_type, now, data),
        "created_at": now,
    }


def _credential_id(row: Record) -> str:
    found: str = row.credential_id if hasattr(row, "credential_id") else row.id
    return found


def _promise_deliveries(
    rt: Runtime, session: Session, made: Sequence[dict[str, Any]], groups: dict[str, str | None]
) -> None:
    organisations = sorted({event["organisation_id"] for event in made})
    subscribed = deliveries.enabled_endpoints(session, organisations)
    rows: list[dict[str, Any]] = []
    promised: list[Promise] = []
    for event in made:
        for endpoint in subscribed:
            is_theirs = (endpoint.organisation_id, endpoint.mode) == (event["organisation_id"], event["mode"])
            if not is_theirs or not webhook_event.wants(endpoint.event_types, event["type"]):
                continue
            delivery_id = rt.new_id("dlv")
            rows.append(_delivery_row(delivery_id, event, endpoint.id))
            group = groups.get(event["credential_id"])
            promised.append(
                Promise(
                    task=TASK,
                    args=[delivery_id],
                    key=f"hook:{event['id']}:{endpoint.id}",
                    subject=event["credential_id"],
                    tenant=event["organisation_id"],
                    priority=BULK if group else INTERACTIVE,
                    bundle_key=endpoint.id,
                    group_key=group,
                )
            )
    deliveries.add_all(session, rows)
    ids = promise_all(session, promised)
    deliveries.set_runs(session, [(row["id"], run_id) for row, run_id in zip(rows, ids, strict=True)])


def _delivery_row(delivery_id: str, event: dict[str, Any], endpoint_id: str) -> dict[str, Any]:
    return {
        "id": delivery_id,
        "organisation_id": event["organisation_id"],
        "mode": event["mode"],
        "channel": "webhook",
        "kind": event["type"],
        "revision": 1,
        "credential_id": event["credential_id"],
        "event_id": event["id"],
        "endpoint_id": endpoint_id,
        "state": "pending",
        "possible_duplicate": False,
        "created_at": event["created_at"],
    }


def post(rt: Runtime, run: Run, delivery_id: str) -> None:
    """Post one event to one endpoint."""
    with rt.database.snapshot() as session:
        delivery = deliveries.delivery(session, delivery_id)
        endpoint = deliveries.endpoint(session, delivery.endpoint_id) if delivery else None
        event = deliveries.event(session, delivery.event_id) if delivery else None
        unsure = status.may_have_acted(session, run)
    if delivery is None or endpoint is None or event is None:
        raise Permanent("not_found", f"delivery {delivery_id} has no event or endpoint")
    if endpoint.state == "disabled":
        raise Permanent("endpoint_disabled", f"endpoint {endpoint.id} is disabled; enable it, then replay")
    breaker = _admit(rt, endpoint)
    with rt.endpoint_places.hold(endpoint.id):
        try:
            answer = rt.webhook_client.post(
                endpoint.url,
                event_id=event.id,
                body=event.body,
                secrets=_secrets(rt, endpoint),
                now=rt.database.now(),
            )
        except (EndpointFailed, EndpointGone) as failed:
            _record_failure(rt, run, delivery, endpoint, failed)
            raise

    def taken(session: Session) -> None:
        deliveries.mark_sent(session, delivery.id, rt.database.now(), possible_duplicate=unsure)
        run.settle(session, {"status": answer.status}, evidence=answer.evidence())
        _keep(rt, session, delivery.id, run, answer)
        if not breaker.is_healthy or _is_old(rt, endpoint):
            deliveries.set_breaker(
                session, endpoint.id, failures=0, opened=0, closed_until=None,
                last_success_at=rt.database.now(),
            )  # fmt: skip

    record(rt.database.transaction, run, taken)
    crash_point("settle.after_commit")
    if not breaker.is_healthy:
        _recall(rt, endpoint.id)


def give_up(rt: Runtime, session: Session, run: Run, error: Permanent) -> None:
    """Mark the delivery failed, in the commit that parks its run."""
    del rt
    deliveries.mark_failed(session, run.args[0], "failed", error.code)


def _secrets(rt: Runtime, endpoint: Record) -> list[str]:
    key = rt.need_secrets_key()
    place = f"endpoint:{endpoint.id}".encode()
    return [
        open_sealed(key, bytes.fromhex(sealed), associated=place).decode()
        for sealed in endpoint.sealed_secrets
    ]


def _is_old(rt: Runtime, endpoint: Record) -> bool:
    # Written at most once an hour: a healthy endpoint must not become a hot row.
    last = endpoint.last_success_at
    return last is None or rt.database.now() - last > timedelta(hours=1)


def _admit(rt: Runtime, endpoint: Record) -> Breaker:
    breaker = Breaker(endpoint.failures, endpoint.opened, endpoint.closed_until)
    if breaker.closed_until is None:
        return breaker
    now = rt.database.now()
    if breaker.closed_until > now:
        wait = (breaker.closed_until - now).total_seconds()
        raise Snooze(FAILING, f"endpoint {endpoint.id} is left alone for now", seconds=wait)
    with rt.database.transaction() as session:
        until = now + timedelta(seconds=PROBE_SECONDS)
        mine = deliveries.take_probe(session, endpoint.id, breaker.closed_until, until)
        if mine:  # the others need not be claimed to learn that they have to wait
            destinations.defer(session, endpoint.id, until, FAILING, due_by=now)
    if not mine:
        raise Snooze(FAILING, f"endpoint {endpoint.id} is being probed", seconds=BUSY_SECONDS)
    return breaker


def _record_failure(
    rt: Runtime, run: Run, delivery: Record, endpoint: Record, failed: Retryable | Permanent
) -> None:
    """Keep the answer and move the breaker; the run itself is retried or parked by its class."""
    now = rt.database.now()
    answer = getattr(failed, "answer", None)
    with rt.database.transaction() as session:
        if answer is not None:
            _keep(rt, session, delivery.id, run, answer)
        if isinstance(failed, EndpointGone):
            deliveries.set_breaker(session, endpoint.id, state="disabled")
            destinations.recall(session, endpoint.id, FAILING, now)  # to end, and not to wait for it
            return
        fresh = deliveries.endpoint(session, endpoint.id) or endpoint
        after = Breaker(fresh.failures, fresh.opened, fresh.closed_until).after_failure(now, BREAKER)
        last = fresh.last_success_at or fresh.created_at
        state = "disabled" if after.opened and now - last > GIVE_UP_AFTER else fresh.state
        deliveries.set_breaker(
            session, endpoint.id, failures=after.failures, opened=after.opened,
            closed_until=after.closed_until, state=state,
        )  # fmt: skip
        if after.closed_until is not None:
            destinations.recall(session, endpoint.id, FAILING, after.closed_until)
            destinations.defer(session, endpoint.id, after.closed_until, failed.code)


def _recall(rt: Runtime, endpoint_id: str) -> None:
    """Bring back what waited for an endpoint, once it answered."""
    with rt.database.transaction() as session:
        destinations.recall(session, endpoint_id, FAILING, rt.database.now())


def _keep(rt: Runtime, session: Session, delivery_id: str, run: Run, answer: Answer) -> None:
    deliveries.add_answer(
        session,
        delivery_id=delivery_id,
        attempt=run.number,
        status=answer.status,
        duration_ms=answer.duration_ms,
        snippet=answer.snippet,
        created_at=rt.database.now(),
    )
