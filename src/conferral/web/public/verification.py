# SPDX-License-Identifier: Apache-2.0
"""The page behind the QR code: one verdict in plain words, what was checked, and the files.

The answer comes from rows and stored bytes: it is the same with Redis, mail and chains down.
Unknown, hidden and not yet issued look alike.
"""

from __future__ import annotations

import json
from datetime import date
from typing import Any, Final

from flask import Blueprint, Response, jsonify, render_template, request

from conferral.domain.problems import Problem
from conferral.domain.tokens import is_public_token
from conferral.domain.verification import Check, Verdict
from conferral.services import verifying
from conferral.services.verifying import PublicCredential
from conferral.web import measures, templating, words
from conferral.web.problems import Refusal
from conferral.web.public import answers
from conferral.web.site import runtime, site

pages = Blueprint("verification", __name__)

PREVIEW_SECONDS: Final = 300
JSON_TYPES: Final = ("application/json", "application/problem+json", "application/vc", "application/ld+json")


@pages.get("/c/<token>")
def page(token: str) -> Response:
    """Show the verdict: HTML for people, JSON for programs."""
    answers.limit()
    found = _found(token)
    verdict = found.judgement.verdict
    measures.verifications.labels(verdict.value).inc()
    if wants_json():
        return _json(found)
    html = render_template(
        "verification.html",
        found=found,
        word=words.VERDICT[verdict],
        checks=[(check, words.check(check)) for check in found.judgement.checks],
        remarks={check.id: _remark(check, found) for check in found.judgement.checks},
        has_picture=verdict in (Verdict.VALID, Verdict.EXPIRED, Verdict.SUSPENDED, Verdict.NOT_YET_VALID),
        document=json.dumps(found.document, indent=2, ensure_ascii=False),
        page_url=runtime().url(f"/c/{token}"),
    )
    response = Response(html, mimetype="text/html")
    response.headers["X-Robots-Tag"] = "noindex"
    response.headers["Vary"] = "Accept"
    return response


@pages.get("/c/<token>/preview.png")
def preview(token: str) -> Response:
    """Show the certificate as a picture."""
    answers.limit()
    picture = site().previews.get(runtime(), token) if is_public_token(token) else None
    if picture is None:
        raise answers.unknown()
    return answers.file(picture, "image/png", seconds=PREVIEW_SECONDS)


@pages.get("/c/<token>/base.pdf")
def base_pdf(token: str) -> Response:
    """Return the PDF that the signed credential names by digest: the same bytes for ever."""
    return _pdf(token, verifying.base_pdf(runtime(), token) if is_public_token(token) else None)


@pages.get("/c/<token>/certificate.pdf")
def certificate_pdf(token: str) -> Response:
    """Return the certificate with its credential attached."""
    return _pdf(token, verifying.final_pdf(runtime(), token) if is_public_token(token) else None)


@pages.get("/c/<token>/credential.json")
def credential_json(token: str) -> Response:
    """Return the exact signed bytes."""
    stored = verifying.stored_credential(runtime(), token) if is_public_token(token) else None
    if stored is None:
        raise answers.unknown()
    return answers.file(stored, "application/vc", name=f"{token}.json")


@pages.get("/c/<token>/proof")
def proof(token: str) -> Response:
    """Return the proof that the log contains the credential (C2SP tlog-proof)."""
    _found(token)
    text = verifying.tlog_proof(runtime(), token)
    if text is None:
        raise Refusal(
            Problem("temporary_reduced_capacity", "it is not in a published checkpoint yet"),
            headers={"Retry-After": str(answers.PROOF_SECONDS)},
            status=503,
        )
    # A newer checkpoint makes a newer proof; both are right.
    return answers.file(text, "text/plain", seconds=0, name=f"{token}.tlog-proof")


def wants_json() -> bool:
    """Return whether the client asks for data, by `?format=json` or by what it accepts."""
    if "format" in request.args:
        return request.args["format"] == "json"
    return request.accept_mimetypes.best_match(["text/html", *JSON_TYPES]) in JSON_TYPES


def _found(token: str) -> PublicCredential:
    found = verifying.by_token(runtime(), token) if is_public_token(token) else None
    if found is None:
        raise answers.unknown()
    return found


def _remark(check: Check, found: PublicCredential) -> str:
    """Return what makes a check's sentence tangible: who, until when, where."""
    remark = check.detail[:1].upper() + check.detail[1:]
    if check.id == "issuer":
        remark = _issuer_remark(found)
    elif check.id == "validity":
        ends = found.expires_on
        began = "It ended on" if check.ok is False else "Until"
        remark = f"{began} {templating.day(ends)}" if ends is not None else "It has no end date"
    elif check.id == "status" and check.ok:
        remark = "The issuer was asked just now"
    elif check.id == "signature" and check.ok:
        remark = "Not a letter was changed since it was signed"
    return remark


def _issuer_remark(found: PublicCredential) -> str:
    did = str(_issuer_of(found.document))
    if did.startswith("did:web:"):
        host = did.removeprefix("did:web:").partition(":")[0].replace("%3A", ":")
        return f"{found.issuer_name}, at {host}"
    return f"{found.issuer_name}, by a key that this installation keeps for it"


def _issuer_of(document: dict[str, Any]) -> Any:
    issuer = document.get("issuer")
    return issuer.get("id") if isinstance(issuer, dict) else issuer


def _pdf(token: str, content: bytes | None) -> Response:
    if content is None:
        raise answers.unknown()
    return answers.file(content, "application/pdf", name=f"certificate-{token}.pdf")


def _json(found: PublicCredential) -> Response:
    rt = runtime()
    here = f"/c/{found.token}"
    body: dict[str, Any] = {
        **found.judgement.as_wire(),
        "sentence": found.judgement.sentence,
        "credential": {
            "title": found.title,
            "recipient": found.recipient_name,
            "issuer": found.issuer_name,
            "issued_on": _day(found.issued_on),
            "expires_on": _day(found.expires_on),
            "test": found.is_test,
        },
        "links": {
            "page": rt.url(here),
            "pdf": rt.url(f"{here}/certificate.pdf"),
            "credential": rt.url(f"{here}/credential.json"),
            "proof": rt.url(f"{here}/proof"),
        },
    }
    response = jsonify(body)
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["X-Robots-Tag"] = "noindex"
    response.headers["Vary"] = "Accept"
    return response


def _day(value: date | None) -> str | None:
    return value.isoformat() if value is not None else None
