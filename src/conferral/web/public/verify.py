# SPDX-License-Identifier: Apache-2.0
"""`/verify`: whoever holds a certificate brings it, and gets the verdict of its page.

No login, no cookie, no token against forgery: nothing is changed and nothing is kept, so there is nothing
that somebody else's form could do. What names no issuer of ours is unknown, which is not said to be false.
"""

from __future__ import annotations

from flask import Blueprint, Response, render_template

from conferral.adapters import brought_file
from conferral.services import verifying_uploads
from conferral.services.verifying_uploads import Verified
from conferral.web import words
from conferral.web.public import answers, uploads, verdicts
from conferral.web.site import runtime

pages = Blueprint("verify", __name__)


@pages.get("/verify")
def ask() -> str:
    """Ask for a certificate: a file, or its text."""
    return render_template("verify.html")


@pages.post("/verify")
def verify() -> Response:
    """Judge what was brought: 200 with a verdict, whatever it is."""
    answers.limit()
    content = uploads.read()
    with uploads.place():
        material = brought_file.read(content)
        verified = verifying_uploads.judged(runtime(), material)
    if verified is None:
        verified = verifying_uploads.nothing_of_ours(runtime(), material)
    verdicts.count(verified.judgement)
    return _data(verified) if verdicts.wants_json() else _page(verified)


def _data(verified: Verified) -> Response:
    wire = verdicts.members(verified.judgement, verified.credential)
    if verified.remark:
        wire["remark"] = verified.remark
    if verified.original is not None:
        wire["original"] = runtime().url(f"/c/{verified.original}")
    return verdicts.data(wire)


def _page(verified: Verified) -> Response:
    judgement = verified.judgement
    html = render_template(
        "judged.html",
        verified=verified,
        found=verified.credential,
        judgement=judgement,
        word=words.VERDICT[judgement.verdict],
        checks=verdicts.said(judgement, verified.credential),
        host=runtime().public_url.partition("://")[2],
    )
    return verdicts.answer(Response(html, mimetype="text/html"))
