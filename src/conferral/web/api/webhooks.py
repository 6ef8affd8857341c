# SPDX-License-Identifier: Apache-2.0
"""Webhook endpoints and the events they get; a secret is shown once, when it is made."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, jsonify
from sqlalchemy.orm import Session

from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.services import subscribing
from conferral.services.idempotency import Answer
from conferral.store.queries import deliveries
from conferral.store.records import Record
from conferral.web import cursors, idempotent
from conferral.web.api import blueprint, outputs, wire
from conferral.web.api.models import NOT_FOUND, EndpointBody, EndpointPath, EventsQuery
from conferral.web.gate import needs
from conferral.web.site import caller, runtime

api = blueprint("webhooks")

CREATED, NO_CONTENT = 201, 204
FIRST_ID = ""  # sorts before every id: the beginning of a moment


@api.post("/v1/webhook-endpoints", responses={201: outputs.NewEndpointOut})
@needs("webhooks:write")
def create(body: EndpointBody) -> Response:
    """Add an endpoint; the answer holds its secret, this once: a repetition shows null."""

    def work(session: Session) -> Answer:
        added = subscribing.add(
            runtime(),
            session,
            caller(),
            body.url,
            event_types=body.event_types,
            temporary=body.temporary,
        )
        row = deliveries.endpoint(session, added.id)
        shown: dict[str, Any] = wire.endpoint(row) if row is not None else {"id": added.id}
        where = f"/v1/webhook-endpoints/{added.id}"
        return idempotent.json_answer(CREATED, {**shown, "secret": added.secret}, {"Location": where})

    return idempotent.once(work, shown_once="secret")


@api.get("/v1/webhook-endpoints", responses={200: outputs.EndpointPage})
@needs("webhooks:read")
def list_endpoints() -> Response:
    """List the endpoints of this mode, oldest first."""
    who = caller()
    with runtime().database.snapshot() as session:
        rows = deliveries.endpoints_of(session, who.organisation_id, who.mode)
    return jsonify(data=[wire.endpoint(row) for row in rows], next_cursor=None, has_more=False)


@api.get("/v1/webhook-endpoints/<endpoint_id>", responses={200: outputs.EndpointOut, **NOT_FOUND})
@needs("webhooks:read")
def show(path: EndpointPath) -> Response:
    """Return one endpoint."""
    with runtime().database.snapshot() as session:
        return jsonify(wire.endpoint(_own(session, path.endpoint_id)))


@api.delete("/v1/webhook-endpoints/<endpoint_id>", responses={204: None, **NOT_FOUND})
@needs("webhooks:write")
def remove(path: EndpointPath) -> Response:
    """Disable an endpoint for good; its history stays."""
    with runtime().database.transaction() as session:
        row = _own(session, path.endpoint_id)
        subscribing.remove(runtime(), session, caller(), row.id)
    return Response(status=NO_CONTENT)


@api.get("/v1/events", responses={200: outputs.EventPage})
@needs("webhooks:read")
def list_events(query: EventsQuery) -> Response:
    """List events, oldest first: the way to find what a receiver missed."""
    who = caller()
    after = cursors.read(query.cursor) or ((query.since, FIRST_ID) if query.since is not None else None)
    with runtime().database.snapshot() as session:
        rows = deliveries.events_page(session, who.organisation_id, who.mode, after=after, limit=query.limit)
    # A reader who has seen the newest event keeps the cursor and asks again with it.
    return jsonify(
        data=[_event(row) for row in rows],
        next_cursor=cursors.write((rows[-1].created_at, rows[-1].id)) if rows else query.cursor,
        has_more=len(rows) == query.limit,
    )


def _event(row: Record) -> dict[str, Any]:
    return {"id": row.id, "created_at": wire.moment(row.created_at), **json.loads(row.body)}


def _own(session: Session, endpoint_id: str) -> Record:
    who = caller()
    row = deliveries.endpoint(session, endpoint_id) if is_id(endpoint_id, "whe") else None
    if row is None or (row.organisation_id, row.mode) != (who.organisation_id, who.mode):
        raise Problem("not_found", "there is no such webhook endpoint")
    return row
