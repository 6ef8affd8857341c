# SPDX-License-Identifier: Apache-2.0
"""The page behind the QR code: one verdict in plain words, what was checked, and the files.

The answer comes from rows and stored bytes: it is the same with Redis, mail and chains down.
Unknown, hidden and not yet issued look alike; what was erased says so.
"""

from __future__ import annotations

import json
from typing import Final

from flask import Blueprint, Response, render_template

from conferral.domain.problems import Problem
from conferral.domain.tokens import is_public_token
from conferral.services import bundling, verifying
from conferral.services.verifying import PublicCredential
from conferral.web import words
from conferral.web.problems import Refusal
from conferral.web.public import answers, verdicts
from conferral.web.site import runtime, site

pages = Blueprint("verification", __name__)

PREVIEW_SECONDS: Final = 300


@pages.get("/c/<token>")
def page(token: str) -> Response:
    """Show the verdict: HTML for people, JSON for programs."""
    answers.limit()
    found = _found(token)
    judgement = found.judgement
    verdicts.count(judgement)
    if verdicts.wants_json():
        return verdicts.data(verdicts.members(judgement, found))
    html = render_template(
        "verification.html",
        found=found,
        judgement=judgement,
        word=words.VERDICT[judgement.verdict],
        checks=verdicts.said(judgement, found),
        has_picture=judgement.verdict in verdicts.WITH_PICTURE,
        document=json.dumps(found.document, indent=2, ensure_ascii=False),
        page_url=runtime().url(f"/c/{token}"),
    )
    return verdicts.answer(Response(html, mimetype="text/html"))


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
        raise not_published()
    # A newer checkpoint makes a newer proof; both are right.
    return answers.file(text, "text/plain", seconds=0, name=f"{token}.tlog-proof")


@pages.get("/c/<token>/proof.zip")
def proof_bundle(token: str) -> Response:
    """Return everything that is needed to check the certificate without us."""
    answers.limit()
    row = verifying.issued(runtime(), token) if is_public_token(token) else None
    if row is None:
        raise answers.unknown()
    content = bundling.bundle(runtime(), row)
    if content is None:
        raise not_published()
    # Status list and checkpoint move on: another look may be another bundle.
    response = answers.file(content, "application/zip", seconds=0, name=f"proof-{token}.zip")
    response.headers["Content-Disposition"] = f'attachment; filename="proof-{token}.zip"'
    return response


def not_published() -> Refusal:
    """Return what is answered in the milliseconds before an entry is in a checkpoint."""
    return Refusal(
        Problem("temporary_reduced_capacity", "it is not in a published checkpoint yet"),
        headers={"Retry-After": str(answers.PROOF_SECONDS)},
        status=503,
    )


def _found(token: str) -> PublicCredential:
    found = verifying.by_token(runtime(), token) if is_public_token(token) else None
    if found is None:
        raise answers.unknown()
    return found


def _pdf(token: str, content: bytes | None) -> Response:
    if content is None:
        raise answers.unknown()
    return answers.file(content, "application/pdf", name=f"certificate-{token}.pdf")
