# SPDX-License-Identifier: Apache-2.0
"""VC-API of the W3C Credentials Community Group, for integrators and conformance suites.

Verifying is open and limited like the public pages. The answers are the protocol's: 200 with
`"verified": true`, or 400 with the errors. What is sent is judged and forgotten.
"""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from conferral.domain import canonical
from conferral.domain.problems import Problem
from conferral.services import verifying_foreign
from conferral.services.verifying_foreign import Verification
from conferral.web.public import answers, uploads
from conferral.web.site import runtime

pages = Blueprint("vc_api", __name__, url_prefix="/vc-api")

VERIFIED, REFUSED = 200, 400
MOST_OPTION: Final = 1_000  # characters of a challenge or domain


@pages.post("/credentials/verify")
def verify_credential() -> Response:
    """Verify one credential: `{"verifiableCredential": {…}, "options": {}}`."""
    answers.limit()
    body = _body()
    with uploads.place():
        found = verifying_foreign.credential(runtime(), _member(body, "verifiableCredential"))
    return _answer(found)


@pages.post("/presentations/verify")
def verify_presentation() -> Response:
    """Verify a presentation and what is in it: `options.challenge` and `options.domain` are compared."""
    answers.limit()
    body = _body()
    document = _member(body, "verifiablePresentation")
    options = body.get("options") or {}
    with uploads.place():
        found = verifying_foreign.presentation(
            runtime(), document, challenge=_option(options, "challenge"), domain=_option(options, "domain")
        )
    return _answer(found)


def _body() -> dict[str, Any]:
    """Return the request as strict JSON: a member that is named twice would be verified once.

    Raises:
        Problem: `media_type_unsupported`, `body_too_large`, `json_invalid`.
    """
    if not request.is_json:
        raise Problem("media_type_unsupported", "send the body as application/json")
    request.max_content_length = canonical.MAX_DOCUMENT_BYTES
    try:
        content = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise Problem("body_too_large", "a request may have 256 KiB") from None
    try:
        return canonical.read_document(content)
    except canonical.UnsafeDocument as unsafe:
        raise Problem("json_invalid", unsafe.reason) from None


def _member(body: dict[str, Any], name: str) -> dict[str, Any]:
    found = body.get(name)
    if not isinstance(found, dict):
        raise Problem("request_invalid", f"{name} is missing or is no object")
    return found


def _option(options: Any, name: str) -> str:
    found = options.get(name, "") if isinstance(options, dict) else None
    if not isinstance(found, str) or len(found) > MOST_OPTION:
        raise Problem("request_invalid", f"options.{name} is no text of at most {MOST_OPTION} characters")
    return found


def _answer(found: Verification) -> Response:
    wire: dict[str, Any] = {"verified": found.verified, "checks": [check.as_wire() for check in found.checks]}
    if not found.verified:
        wire["errors"] = [check.as_wire() for check in found.checks if not check.ok and check.id != "anchor"]
    status = VERIFIED if found.verified else REFUSED
    response = Response(json.dumps(wire), status=status, mimetype="application/json")
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response
