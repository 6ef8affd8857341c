# SPDX-License-Identifier: Apache-2.0
"""The door of the API: key, scope, rate, content type and JSON, in this order, before any handler.

A handler without a scope cannot be reached: who adds a route must say what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import current_app, g, request

from conferral.domain.problems import Problem
from conferral.services import tenancy
from conferral.services.runtime import Caller
from conferral.web import json_body
from conferral.web.limits import READ, WRITE, Taken
from conferral.web.problems import Refusal
from conferral.web.site import request_id, runtime, site

View = TypeVar("View", bound=Callable[..., Any])

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
# Bytes of a batch as JSON, which is held in memory several times over; CSV is read in pieces.
MAX_JSON_BATCH: Final = 4 * 1024 * 1024
JSON, CSV = "application/json", "text/csv"
_SCOPE: Final = "conferral_scope"
_MAX_BODY: Final = "conferral_max_body"
_MEDIA: Final = "conferral_media"


def needs(scope: str, *, max_body: int | None = None, media: str = JSON) -> Callable[[View], View]:
    """Declare the scope a handler needs, its own limit for bodies (bytes), and what they are.

    JSON is read before the handler; anything else the handler reads itself.
    """

    def declare(view: View) -> View:
        setattr(view, _SCOPE, scope)
        setattr(view, _MAX_BODY, max_body)
        setattr(view, _MEDIA, media)
        return view

    return declare


def scope_of(view: Callable[..., Any]) -> str | None:
    """Return the scope a handler declared."""
    found: str | None = getattr(view, _SCOPE, None)
    return found


def admit() -> None:
    """Let a request in, or raise the Problem that says why not; runs before every API handler."""
    view = current_app.view_functions[request.endpoint or ""]
    scope = scope_of(view)
    if scope is None:
        raise Problem("not_found", "there is nothing at this address")
    caller = tenancy.authenticate(runtime(), _bearer(), request_id())
    g.caller = caller
    if scope not in caller.scopes:
        raise Problem("scope_missing", f"this needs the scope {scope}; use a key that has it")
    _count(caller)
    if request.method in WITH_BODY:
        request.max_content_length = getattr(view, _MAX_BODY, None) or request.max_content_length
        media = getattr(view, _MEDIA, JSON)
        if media == JSON:
            g.json = read_json()
        elif request.mimetype != media:
            raise Problem("media_type_unsupported", f"send the body as {media}")


def read_json() -> Any:
    """Return the request's JSON document.

    Raises:
        Problem: `media_type_unsupported`, `json_invalid`.
    """
    if not request.is_json:
        raise Problem("media_type_unsupported", "send the body as application/json")
    body = request.get_data()
    # Without a Content-Length the reading just ends at the limit, and what is cut off is nobody's request.
    if request.content_length is None and len(body) >= (request.max_content_length or 0):
        raise Problem("body_too_large", "the body is larger than this address takes")
    return json_body.parse(body)


def count(taken: Taken) -> None:
    """Remember what is left for the answer's headers; refuse what is beyond the quota.

    Raises:
        Refusal: `quota_exceeded`.
    """
    g.rate_limit = taken
    if not taken.is_allowed:
        policy = taken.policy
        problem = Problem(
            "quota_exceeded", f"at most {policy.quota} requests in {policy.window_seconds} s; wait"
        )
        raise Refusal(
            problem,
            headers={"Retry-After": str(taken.resets_in)},
            members={"violated-policies": [policy.name]},
        )


def _count(caller: Caller) -> None:
    count(site().limiter.take(READ if request.method in READING else WRITE, caller.actor))


def _bearer() -> str | None:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None
