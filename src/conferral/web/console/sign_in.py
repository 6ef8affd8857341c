# SPDX-License-Identifier: Apache-2.0
"""Signing in and out. Guessing is slow (scrypt) and rare (a limit by address and by account)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flask import Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from conferral.domain.problems import Problem
from conferral.services import tenancy
from conferral.web.addresses import client_address
from conferral.web.console.door import cookie_name, is_https, pages
from conferral.web.limits import LOGIN
from conferral.web.site import runtime, site

MOST_TYPED: Final = 300  # characters of an address or a password that are looked at
UNAUTHORISED, TOO_MANY = 401, 429


@pages.get("/login")
def login() -> str:
    """Show the form."""
    return render_template("console/login.html", next=_own_path(request.args.get("next", "")))


@pages.post("/login")
def sign_in() -> AnyResponse:
    """Open a session with a new id, or show the form again."""
    email = request.form.get("email", "")[:MOST_TYPED].replace("\0", "")
    password = request.form.get("password", "")[:MOST_TYPED]
    limiter = site().limiter
    taken = [limiter.take(LOGIN, client_address()), limiter.take(LOGIN, f"account:{email.strip().lower()}")]
    if not all(one.is_allowed for one in taken):
        seconds = max(one.resets_in for one in taken)
        return _again(f"Too many attempts. Wait {seconds} s, then try again.", email, TOO_MANY, seconds)
    try:
        opened = tenancy.sign_in(runtime(), email, password)
    except Problem:
        return _again("The address or the password is wrong.", email, UNAUTHORISED)
    response = redirect(_own_path(request.form.get("next", "")) or url_for("console.home"))
    response.set_cookie(
        cookie_name(),
        opened.cookie,
        max_age=int(tenancy.SESSION_FOR.total_seconds()),
        secure=is_https(),
        httponly=True,
        samesite="Lax",
        path="/",
    )
    return response


@pages.post("/logout")
def sign_out() -> AnyResponse:
    """End the session."""
    tenancy.sign_out(runtime(), request.cookies.get(cookie_name(), ""))
    response = redirect(url_for("console.login"))
    response.delete_cookie(cookie_name(), secure=is_https(), httponly=True, samesite="Lax", path="/")
    return response


def _again(message: str, email: str, status: int, seconds: int | None = None) -> Response:
    page = render_template(
        "console/login.html", message=message, email=email, next=_own_path(request.form.get("next", ""))
    )
    response = Response(page, status=status, mimetype="text/html")
    if seconds is not None:
        response.headers["Retry-After"] = str(seconds)
    return response


def _own_path(text: str) -> str:
    """Return a path of the console, or nothing: a sign-in must not lead to another site."""
    parts = urlsplit(text[:MOST_TYPED])
    is_own = not parts.scheme and not parts.netloc and parts.path.startswith("/console")
    return text[:MOST_TYPED] if is_own and "\\" not in text and parts.path != "/console/login" else ""
