# SPDX-License-Identifier: Apache-2.0
"""The captured mailbox of test mode: what would have been sent, byte for byte."""

from __future__ import annotations

from flask import Response, jsonify

from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.store.queries import listing
from conferral.web import cursors
from conferral.web.api import blueprint, outputs, wire
from conferral.web.api.models import NOT_FOUND, MessagePath, PageQuery
from conferral.web.gate import needs
from conferral.web.site import caller, runtime

api = blueprint("mailbox")


@api.get("/v1/test/mailbox", responses={200: outputs.MessagePage})
@needs("credentials:read")
def list_messages(query: PageQuery) -> Response:
    """List captured messages, newest first."""
    organisation_id = _tester()
    with runtime().database.snapshot() as session:
        rows = listing.messages_page(
            session, organisation_id, "test", before=cursors.read(query.cursor), limit=query.limit
        )
    return jsonify(cursors.page(rows, query.limit, wire.message, moment="received_at"))


@api.get("/v1/test/mailbox/<message_id>", responses={200: outputs.MessageSourceOut, **NOT_FOUND})
@needs("credentials:read")
def show(path: MessagePath) -> Response:
    """Return one captured message with its source."""
    organisation_id = _tester()
    row = None
    if is_id(path.message_id, "msg"):
        with runtime().database.snapshot() as session:
            row = listing.message(session, organisation_id, "test", path.message_id)
    if row is None:
        raise Problem("not_found", "there is no such message; they are kept for 7 days")
    return jsonify({**wire.message(row), "source": row.source.decode("utf-8", "replace")})


def _tester() -> str:
    who = caller()
    if who.mode != "test":
        raise Problem("not_found", "only test keys have a mailbox; live mail is sent")
    return who.organisation_id
