# SPDX-License-Identifier: Apache-2.0
"""What every request and answer carries: ids, security headers, one log line, one measurement."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Final

from flask import Flask, Response, g, request

from conferral.web import measures
from conferral.web.site import Site

log = logging.getLogger(__name__)

_SANE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,79}")
CONTENT_SECURITY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # a link on a page must not carry a public token away
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Cache-Control": "no-store",
}
TRANSPORT_SECURITY: Final = "max-age=31536000"  # a year; sent where the public address is https


def install(app: Flask, site: Site) -> None:
    """Wrap every request of the application."""
    is_https = site.settings.public_url.startswith("https://")

    @app.before_request
    def begin() -> None:
        given = request.headers.get("Request-Id", "")
        g.request_id = given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        g.began = time.perf_counter()

    @app.after_request
    def finish(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if is_https:
            response.headers.setdefault("Strict-Transport-Security", TRANSPORT_SECURITY)
        response.headers["Request-Id"] = g.request_id
        if (taken := g.get("rate_limit")) is not None:
            response.headers.update(taken.headers())
        _record(response)
        return response


def _record(response: Response) -> None:
    seconds = time.perf_counter() - g.began
    route = request.url_rule.rule if request.url_rule is not None else "unknown"
    measures.observe_request(request.method, route, response.status_code, seconds)
    if g.get("is_replayed"):
        measures.idempotent_replays.inc()
    if response.status_code == 429 and (taken := g.get("rate_limit")) is not None:  # noqa: PLR2004
        measures.rate_limited.labels(taken.policy.name).inc()
    caller = g.get("caller")
    log.info(
        "http_request",
        extra={
            "request_id": g.request_id,
            "method": request.method,
            "route": route,
            "status": response.status_code,
            "duration_ms": round(seconds * 1000, 1),
            "organisation_id": caller.organisation_id if caller is not None else None,
        },
    )
