# SPDX-License-Identifier: Apache-2.0
"""VC-API of the W3C Credentials Community Group, for integrators and conformance suites.

Verifying is open and limited like the public pages. The answers are the protocol's: 200 with
`"verified": true`, or 400 with the errors. What is sent is judged and forgotten. Signing is off unless
switched on, and asks for a key; no signing key is opened in this process.
"""

from __future__ import annotations

import json
from typing import Any, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from conferral.domain import canonical
from conferral.domain.problems import Problem
from conferral.services import signing_documents, verifying_foreign
from conferral.services.verifying_foreign import Verification
from conferral.store.queries import signed_documents
from conferral.store.records import Record
from conferral.web import gate
from conferral.web.problems import Refusal
from conferral.web.public import answers, uploads
from conferral.web.site import caller, runtime, site

pages = Blueprint("vc_api", __name__, url_prefix="/vc-api")

VERIFIED, CREATED, REFUSED = 200, 201, 400
SIGNING_SECONDS: Final = 10.0  # an idle system signs in a tenth of one
RETRY_SECONDS: Final = 2
MOST_DIGITS: Final = 9  # of a list's number or an index
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


@pages.post("/credentials/issue")
@gate.needs("credentials:write", max_body=canonical.MAX_DOCUMENT_BYTES)
def issue_credential() -> Response:
    """Have a document signed: `{"credential": {…}}` → 201; 503 when it takes longer than ten seconds."""
    if not site().settings.vc_api_issue:
        raise Problem("not_found", "signing for other software is switched off here")
    gate.admit()
    document = _member(_body(), "credential")
    with runtime().database.transaction() as session:
        document_id = signing_documents.request(runtime(), session, caller(), document)
    row = site().patience.watch(lambda: _look(document_id), _is_done, SIGNING_SECONDS)
    if row is not None and row.failure_detail is not None:
        raise Problem("request_invalid", row.failure_detail)
    if row is None or row.signed is None:
        raise Refusal(
            Problem("temporary_reduced_capacity", "it is not signed yet; ask again"),
            headers={"Retry-After": str(RETRY_SECONDS)},
            status=503,
        )
    return Response(
        json.dumps({"verifiableCredential": json.loads(row.signed)}), CREATED, mimetype="application/json"
    )


@pages.post("/credentials/status")
@gate.needs("credentials:write", max_body=canonical.MAX_DOCUMENT_BYTES)
def update_status() -> Response:
    """Withdraw what was signed here: `{"credentialStatus": {its status entry}, "status": true}`."""
    if not site().settings.vc_api_issue:
        raise Problem("not_found", "signing for other software is switched off here")
    gate.admit()
    body = _body()
    entry = _member(body, "credentialStatus")
    address, index = entry.get("statusListCredential"), entry.get("statusListIndex")
    number = str(address).removeprefix(runtime().url("/status/"))
    if body.get("status") is not True or not _is_number(number) or not _is_number(index):
        raise Problem("request_invalid", "name a status entry of ours and `status: true`: it is for good")
    with runtime().database.transaction() as session:
        signing_documents.revoke(runtime(), session, caller(), int(number), int(str(index)))
    return Response(json.dumps({"status": True}), mimetype="application/json")


def _is_number(text: object) -> bool:
    return isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS


def _look(document_id: str) -> Record | None:
    with runtime().database.snapshot() as session:
        return signed_documents.one(session, document_id)


def _is_done(row: Record | None) -> bool:
    return row is None or row.signed is not None or row.failure_detail is not None


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
