# SPDX-License-Identifier: Apache-2.0
"""Small pages: the welcome, what an error code means, and the end of unwanted mail."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from conferral.domain.problems import PROBLEMS
from conferral.domain.tokens import is_public_token
from conferral.services import suppressing
from conferral.web.public import answers
from conferral.web.site import runtime

pages = Blueprint("small_pages", __name__)


@pages.get("/")
def welcome() -> str:
    """Lead to the console, or to the page of a certificate."""
    return render_template("welcome.html")


@pages.get("/c")
@pages.get("/c/")
def find() -> AnyResponse:
    """Open the page of a certificate whose link or code was typed."""
    typed = request.args.get("code", "").strip().rstrip("/").rpartition("/")[2]
    if is_public_token(typed):
        return redirect(url_for("verification.page", token=typed))
    html = render_template("welcome.html", typed=request.args.get("code", "")[:200])
    return Response(html, mimetype="text/html")


@pages.get("/problems/<code>")
def problem(code: str) -> str:
    """Say what an error code means and what to do."""
    if code not in PROBLEMS:
        raise answers.unknown()
    return render_template("problem_type.html", kind=PROBLEMS[code])


@pages.get("/u/<token>")
def ask_to_unsubscribe(token: str) -> str:
    """Ask before anything is changed: mail scanners open links."""
    answers.limit()
    name = suppressing.organisation_of(runtime(), token) if is_public_token(token) else None
    if name is None:
        raise answers.unknown()
    return render_template("unsubscribe.html", organisation=name, is_done=False)


@pages.post("/u/<token>")
def unsubscribe(token: str) -> str:
    """End the organisation's mail to this person (RFC 8058: one click, no login, no cookie)."""
    answers.limit()
    name = suppressing.unsubscribe(runtime(), token) if is_public_token(token) else None
    if name is None:
        raise answers.unknown()
    return render_template("unsubscribe.html", organisation=name, is_done=True)
