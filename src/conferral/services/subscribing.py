# SPDX-License-Identifier: Apache-2.0
"""Webhook endpoints: added, listed, removed. Secrets are shown once and stored sealed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from conferral.adapters.address_guard import Target
from conferral.adapters.sealing import seal
from conferral.domain import webhook_event
from conferral.domain.problems import FieldError, Problem
from conferral.reliable.errors import Permanent
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import bookkeeping, deliveries


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint that was just added: its secret is shown once."""

    id: str
    url: str
    secret: str


def add(
    rt: Runtime,
    session: Session,
    caller: Caller,
    url: str,
    *,
    event_types: Sequence[str] = (),
    temporary: bool = False,
) -> NewEndpoint:
    """Insert an endpoint of the caller's mode.

    Raises:
        Problem: `validation_failed` with `url_forbidden` or an unknown event type.
    """
    target = _checked(rt, url)
    _check_types(event_types)
    endpoint_id = rt.new_id("whe")
    secret = webhook_event.generate_secret(rt.random(32))
    sealed = seal(rt.need_secrets_key(), secret.encode(), associated=f"endpoint:{endpoint_id}".encode())
    now = rt.database.now()
    deliveries.add_endpoint(
        session,
        id=endpoint_id,
        organisation_id=caller.organisation_id,
        mode=caller.mode,
        url=target.url,
        event_types=list(event_types),
        sealed_secrets=[sealed.hex()],
        state="enabled",
        temporary=temporary,
        failures=0,
        opened=0,
        created_at=now,
    )
    bookkeeping.audit(
        session, organisation_id=caller.organisation_id, actor=caller.actor,
        action="webhook_endpoint.added", subject=endpoint_id, request_id=caller.request_id,
        created_at=now,
    )  # fmt: skip
    return NewEndpoint(endpoint_id, target.url, secret)


def _checked(rt: Runtime, url: str) -> Target:
    try:
        return rt.guard.check_url(url)
    except Permanent as refused:
        error = FieldError("#/url", "url_forbidden", refused.detail)
        raise Problem("validation_failed", refused.detail, errors=[error]) from None


def _check_types(event_types: Sequence[str]) -> None:
    unknown = sorted(set(event_types) - set(webhook_event.EVENT_TYPES))
    if unknown:
        detail = f"unknown event type {unknown[0][:40]}; known: {', '.join(webhook_event.EVENT_TYPES)}"
        error = FieldError("#/event_types", "field_invalid", detail)
        raise Problem("validation_failed", detail, errors=[error])


def remove(rt: Runtime, session: Session, caller: Caller, endpoint_id: str) -> None:
    """Disable an endpoint; what waits for it ends as `endpoint_disabled`.

    Raises:
        Problem: `not_found`.
    """
    if not deliveries.remove_endpoint(session, caller.organisation_id, endpoint_id):
        raise Problem("not_found", f"there is no webhook endpoint {endpoint_id[:40]}")
    bookkeeping.audit(
        session, organisation_id=caller.organisation_id, actor=caller.actor,
        action="webhook_endpoint.removed", subject=endpoint_id, request_id=caller.request_id,
        created_at=rt.database.now(),
    )  # fmt: skip
