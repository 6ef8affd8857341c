# SPDX-License-Identifier: Apache-2.0
"""How a verdict is told: the same words for the page behind a code and for a file that was brought."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any, Final

from flask import Response, jsonify, request

from conferral.domain.verification import Check, Judgement, Verdict
from conferral.services.verifying import PublicCredential
from conferral.web import measures, templating, words
from conferral.web.site import runtime
from conferral.web.words import Word

log = logging.getLogger(__name__)

JSON_TYPES: Final = ("application/json", "application/problem+json", "application/vc", "application/ld+json")
WITH_PICTURE: Final = (Verdict.VALID, Verdict.EXPIRED, Verdict.SUSPENDED, Verdict.NOT_YET_VALID)


def count(judgement: Judgement) -> None:
    """Count a verdict; say aloud what a stolen key looks like."""
    measures.verifications.labels(judgement.verdict.value).inc()
    if judgement.is_unlogged_signature:
        measures.unlogged_signatures.inc()
        log.error("unlogged_signature", extra={"code": "unlogged_signature"})


def wants_json() -> bool:
    """Return whether the client asks for data, by `?format=json` or by what it accepts."""
    if "format" in request.args:
        return request.args["format"] == "json"
    return request.accept_mimetypes.best_match(["text/html", *JSON_TYPES]) in JSON_TYPES


def said(judgement: Judgement, found: PublicCredential | None) -> list[tuple[Check, Word, str]]:
    """Return each check with its sentence and with what makes it tangible: who, until when, where."""
    return [(check, words.check(check), _remark(check, found)) for check in judgement.checks]


def members(judgement: Judgement, found: PublicCredential | None) -> dict[str, Any]:
    """Return a verdict as data; the credential only where it is told."""
    wire: dict[str, Any] = {**judgement.as_wire(), "sentence": judgement.sentence}
    if found is not None:
        wire["credential"] = {
            "title": found.title,
            "recipient": found.recipient_name,
            "issuer": found.issuer_name,
            "issued_on": _day(found.issued_on),
            "expires_on": _day(found.expires_on),
            "test": found.is_test,
        }
        wire["links"] = links(found.token, found.successor)
    return wire


def links(token: str, successor: str | None = None) -> dict[str, str]:
    """Return the addresses of a credential's page and files."""
    url = runtime().url
    here = f"/c/{token}"
    found = {
        "page": url(here),
        "pdf": url(f"{here}/certificate.pdf"),
        "credential": url(f"{here}/credential.json"),
        "proof": url(f"{here}/proof"),
        "bundle": url(f"{here}/proof.zip"),
    }
    return {**found, "newer": url(f"/c/{successor}")} if successor is not None else found


def answer(response: Response) -> Response:
    """Give a verdict its headers: for no index, for no cache of another format."""
    response.headers["X-Robots-Tag"] = "noindex"
    response.headers["Vary"] = "Accept"
    return response


def data(wire: dict[str, Any]) -> Response:
    """Answer with data that every web page may read."""
    response = answer(jsonify(wire))
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


def _remark(check: Check, found: PublicCredential | None) -> str:
    remark = check.detail[:1].upper() + check.detail[1:]
    if check.id == "issuer" and found is not None:
        remark = _issuer_remark(found)
    elif check.id == "validity" and found is not None:
        ends = found.expires_on
        began = "It ended on" if check.ok is False else "Until"
        remark = f"{began} {templating.day(ends)}" if ends is not None else "It has no end date"
    elif check.id == "status" and check.ok:
        remark = "The issuer was asked just now"
    elif check.id == "signature" and check.ok:
        remark = "Not a letter was changed since it was signed"
    return remark


def _issuer_remark(found: PublicCredential) -> str:
    issuer = found.document.get("issuer")
    did = str(issuer.get("id") if isinstance(issuer, dict) else issuer)
    if did.startswith("did:web:"):
        host = did.removeprefix("did:web:").partition(":")[0].replace("%3A", ":")
        return f"{found.issuer_name}, at {host}"
    return f"{found.issuer_name}, by a key that this installation keeps for it"


def _day(value: date | None) -> str | None:
    return value.isoformat() if value is not None else None
