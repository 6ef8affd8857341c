# SPDX-License-Identifier: Apache-2.0
"""Public files: readable from every web page (CORS), kept by caches for as long as they may be."""

from __future__ import annotations

import hashlib
from typing import Final

from flask import Response, request

from conferral.domain.problems import Problem
from conferral.web.addresses import client_address
from conferral.web.gate import count
from conferral.web.limits import VERIFY
from conferral.web.site import site

SHORT_SECONDS: Final = 300  # what may be withdrawn: a cache forgets it in five minutes
PROOF_SECONDS: Final = 1  # a leaf waits milliseconds for its checkpoint


def file(content: bytes | str, mimetype: str, *, seconds: int = SHORT_SECONDS, name: str = "") -> Response:
    """Return a public file with its ETag; 304 when the client has it.

    Args:
        content: the bytes.
        mimetype: the media type.
        seconds: how long caches may keep it; 0 asks them to come back every time.
        name: the name it is saved under; empty for what is not saved.
    """
    raw = content.encode() if isinstance(content, str) else content
    response = Response(raw, mimetype=mimetype)
    response.set_etag(hashlib.sha256(raw).hexdigest()[:32])
    response.headers["Cache-Control"] = f"public, max-age={seconds}" if seconds else "no-cache"
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if name:
        response.headers["Content-Disposition"] = f'inline; filename="{name}"'
    response.make_conditional(request)
    return response


def limit() -> None:
    """Count one request of this address against the limit of public pages."""
    count(site().limiter.take(VERIFY, client_address()))


def unknown() -> Problem:
    """Return what is answered for everything that is not there, hidden, or not there yet."""
    detail = "no record of it is kept here; that does not say it is false: look whether the link is complete"
    return Problem("not_found", detail)
