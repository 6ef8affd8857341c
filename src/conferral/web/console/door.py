# SPDX-License-Identifier: Apache-2.0
"""The door of the console: who is signed in, for which organisation, and whether a form is ours.

Every page but the sign-in stands behind `enter`. Every form carries the session's token, and
must come from our own pages.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, g, redirect, request, url_for
from werkzeug.wrappers import Response

from conferral.domain.problems import Problem
from conferral.services import tenancy as tenants
from conferral.services.runtime import Caller
from conferral.store.queries import tenancy
from conferral.store.records import Record
from conferral.web.site import request_id, runtime, site

pages = Blueprint("console", __name__, url_prefix="/console")

OPEN: Final = frozenset({"console.login", "console.sign_in"})
MAY_CHANGE: Final = frozenset({"owner", "manager"})
ORGANISATION_COOKIE: Final = "conferral_organisation"
OWN_SITES: Final = (None, "same-origin", "none")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at the console, and at which organisation."""

    session: Record
    organisation: Record
    organisations: tuple[Record, ...]

    @property
    def may_change(self) -> bool:
        """Whether this person's role allows more than looking."""
        return self.organisation.role in MAY_CHANGE

    def caller(self, mode: str) -> Caller:
        """Return on whose behalf this person acts; it stands in the audit log."""
        return Caller(
            self.organisation.id,
            "live" if mode == "live" else "test",
            f"user:{self.session.id}",
            frozenset(),
            request_id(),
        )


def visitor() -> Visitor:
    """Return who is signed in."""
    found: Visitor = g.visitor
    return found


def cookie_name() -> str:
    """Return the session cookie's name: browsers take `__Host-` over https only."""
    return "__Host-conferral" if is_https() else "conferral"


def is_https() -> bool:
    """Return whether people reach us over https."""
    return site().settings.public_url.startswith("https://")


@pages.before_request
def enter() -> Response | None:
    """Let a signed-in person in; everybody else is asked to sign in."""
    if request.endpoint in OPEN:
        if request.method == "POST":
            _require_own_page()
        return None
    cookie = request.cookies.get(cookie_name(), "")
    found = tenants.signed_in(runtime(), cookie) if cookie else None
    if found is None:
        if request.method == "GET":
            return redirect(url_for("console.login", next=request.full_path.rstrip("?")))
        raise Problem("session_expired", "sign in again, then repeat what you did")
    g.visitor = _visitor(found)
    if request.method == "POST":
        _require_own_page()
        if not hmac.compare_digest(request.form.get("csrf", "").encode(), found.csrf.encode()):
            raise Problem("csrf_failed", "load the page again, then repeat what you did")
    return None


@pages.context_processor
def shown_everywhere() -> dict[str, Any]:
    """Hand the visitor to every template."""
    return {"visitor": g.get("visitor")}


@pages.post("/organisation")
def choose_organisation() -> Response:
    """Look at another organisation this person belongs to."""
    chosen = request.form.get("organisation", "")
    response = redirect(url_for("console.home"))
    if chosen in {one.id for one in visitor().organisations}:
        response.set_cookie(
            ORGANISATION_COOKIE, chosen, httponly=True, samesite="Lax", secure=is_https(), path="/console"
        )
    return response


def _visitor(session: Record) -> Visitor:
    with runtime().database.snapshot() as database:
        organisations = tuple(tenancy.memberships(database, session.id))
    if not organisations:
        raise Problem("scope_missing", "you belong to no organisation; ask an owner to add you")
    wanted = request.cookies.get(ORGANISATION_COOKIE)
    chosen = next((one for one in organisations if one.id == wanted), organisations[0])
    return Visitor(session, chosen, organisations)


def _require_own_page() -> None:
    """Refuse a form that another site sent; browsers say where a request comes from."""
    if request.headers.get("Sec-Fetch-Site") not in OWN_SITES:
        raise Problem("csrf_failed", "this form was sent from another site")
    origin = request.headers.get("Origin")
    allowed = {site().settings.public_url.rstrip("/"), request.host_url.rstrip("/")}
    if origin is not None and origin not in allowed:
        raise Problem("csrf_failed", "this form was sent from another site")
