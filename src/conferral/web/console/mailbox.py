# SPDX-License-Identifier: Apache-2.0
"""The captured mailbox. A message is foreign HTML: it is shown without scripts, in a frame of its own."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Final

from flask import Response, render_template, request

from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.store.queries import listing
from conferral.store.records import Record
from conferral.web import cursors
from conferral.web.console.door import pages, visitor
from conferral.web.envelope import CONTENT_SECURITY
from conferral.web.site import runtime

PAGE: Final = 50
# The frame's document: styles of the mail itself, pictures inside it, nothing from anywhere.
MAIL_SECURITY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
    "sandbox allow-popups allow-popups-to-escape-sandbox"
)
# Links of a mail open beside the console, not inside the frame.
OPEN_BESIDE: Final = '<base target="_blank">'


@pages.get("/mailbox")
def mailbox() -> str:
    """List captured messages, newest first."""
    with runtime().database.snapshot() as session:
        rows = listing.messages_page(
            session,
            visitor().organisation.id,
            None,
            before=cursors.read(request.args.get("cursor")),
            limit=PAGE,
        )
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return render_template(
        "console/mailbox.html",
        rows=rows[:PAGE],
        older=cursors.write((last.received_at, last.id)) if last is not None else None,
        is_first=not request.args.get("cursor"),
    )


@pages.get("/mailbox/<message_id>")
def message(message_id: str) -> Response:
    """Show one message: as its reader sees it, as text, with its headers."""
    row = _own(message_id)
    parsed = _parsed(row)
    plain = parsed.get_body(("plain",))
    html = parsed.get_body(("html",))
    page = render_template(
        "console/message.html",
        row=row,
        headers=[(name, str(value)) for name, value in parsed.items()],
        plain=plain.get_content() if plain is not None else "",
        has_html=html is not None,
        attachments=[
            (part.get_filename() or part.get_content_type(), len(part.get_payload(decode=True) or b""))
            for part in parsed.iter_attachments()
        ],
    )
    response = Response(page, mimetype="text/html")
    response.headers["Content-Security-Policy"] = f"{CONTENT_SECURITY}; frame-src 'self'"
    return response


@pages.get("/mailbox/<message_id>/html")
def message_html(message_id: str) -> Response:
    """Return the HTML part for the frame; it may do nothing but look."""
    html = _parsed(_own(message_id)).get_body(("html",))
    if html is None:
        raise Problem("not_found", "the message has no HTML part")
    content = str(html.get_content())
    response = Response(content.replace("<head>", f"<head>{OPEN_BESIDE}", 1), mimetype="text/html")
    response.headers["Content-Security-Policy"] = MAIL_SECURITY
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    return response


@pages.get("/mailbox/<message_id>/source")
def message_source(message_id: str) -> Response:
    """Return the message as it would have been sent, byte for byte."""
    return Response(_own(message_id).source, mimetype="text/plain")


def _own(message_id: str) -> Record:
    row = None
    if is_id(message_id, "msg"):
        with runtime().database.snapshot() as session:
            row = listing.message(session, visitor().organisation.id, None, message_id)
    if row is None:
        raise Problem("not_found", "there is no such message; they are kept for 7 days")
    return row


def _parsed(row: Record) -> EmailMessage:
    return message_from_bytes(row.source, policy=policy.default)
