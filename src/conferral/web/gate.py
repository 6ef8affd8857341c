# SPDX-License-Identifier: Apache-2.0
"""The door of the API: key, scope, rate, content type and JSON, in this order, before any handler.

A handler without a scope cannot be reached: who adds a route must say what it needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from flask import current_app, g, request

from conferral.domain.problems import Problem
from conferral.services import tenancy
from conferral.services.runtime import Caller
from conferral.web.limits import READ, WRITE, Taken
from conferral.web.problems import Refusal
from conferral.web.site import request_id, runtime, site

View = TypeVar("View", bound=Callable[..., Any])

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
MAX_UPLOAD: Final = 50 * 1024 * 1024  # bytes of a batch; everything else has the application's limit
_SCOPE: Final = "conferral_scope"
_MAX_BODY: Final = "conferral_max_body"


def needs(scope: str, *, max_body: int | None = None) -> Callable[[View], View]:
    """Declare the scope a handler needs, and its own limit for bodies (bytes)."""

    def declare(view: View) -> View:
        setattr(view, _SCOPE, scope)
        setattr(view, _MAX_BODY, max_body)
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
        g.json = read_json()


def read_json() -> Any:
    """Return the request's JSON document.

    Raises:
        Problem: `media_type_unsupported`, `json_invalid`.
    """
    if not request.is_json:
        raise Problem("media_type_unsupported", "send the body as application/json")
    try:
        document = json.loads(request.get_data(), parse_constant=_refuse_constant)
        # What cannot be written as UTF-8 (a lone surrogate) would fail later, and worse.
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Problem("json_invalid", "the body is not a JSON document in UTF-8") from None
    if not isinstance(document, dict):
        raise Problem("json_invalid", "the body is not a JSON object")
    return document


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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
