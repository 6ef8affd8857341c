# SPDX-License-Identifier: Apache-2.0
"""What templates may use: words, dates, numbers, addresses of static files; all of it escaped."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Final

from flask import Flask, Response, request, url_for
from markupsafe import Markup

from conferral import __version__
from conferral.web import words

STATIC: Final = Path(__file__).parent / "static"
IMMUTABLE: Final = "public, max-age=31536000, immutable"


def install(app: Flask) -> None:
    """Make filters and words known to every template, and let browsers keep static files."""
    app.jinja_env.filters.update(moment=moment, when=when, day=day, number=number, short=short)
    app.jinja_env.globals.update(words=words, asset=asset, version=__version__)
    app.jinja_env.trim_blocks = True
    app.jinja_env.lstrip_blocks = True

    @app.after_request
    def keep(response: Response) -> Response:
        # The address of a static file holds its digest: whoever has it needs no other.
        if request.endpoint == "static" and "v" in request.args and response.status_code < 400:  # noqa: PLR2004
            response.headers["Cache-Control"] = IMMUTABLE
        return response


def asset(name: str) -> str:
    """Return the address of a static file, with what its content is."""
    return url_for("static", filename=name, v=_digest(name))


def moment(value: datetime) -> str:
    """Return a time for people: day, clock, and that it is UTC."""
    at = value.astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M:%S} UTC"


def when(value: datetime | None) -> Markup:
    """Return a time as an element that scripts may turn into "5 minutes ago"."""
    if value is None:
        return Markup("–")  # noqa: RUF001 - a dash, for people
    at = value.astimezone(UTC)
    iso = at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time-ago><time datetime="{}">{}</time></time-ago>').format(iso, moment(at))


def day(value: date) -> str:
    """Return a date for people."""
    return f"{value.day} {value:%B %Y}"


def number(value: float) -> str:
    """Return a number with separators."""
    return f"{value:,}"


def short(value: str, length: int = 12) -> str:
    """Return the beginning of a long id or digest."""
    return value if len(value) <= length else f"{value[:length]}…"


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
