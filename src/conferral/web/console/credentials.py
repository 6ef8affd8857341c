# SPDX-License-Identifier: Apache-2.0
"""Credentials: the list, and one with everything that was done for it."""

from __future__ import annotations

from typing import Any

from flask import render_template, request

from conferral.domain import status_change
from conferral.domain.credential import STATES
from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.reliable import status
from conferral.store.queries import deliveries, listing, log, status_lists
from conferral.web import cursors
from conferral.web.console.door import pages, visitor
from conferral.web.site import runtime

PAGE = 50
MOST_TYPED = 100  # characters of a search


@pages.get("/credentials")
def credentials() -> str:
    """List credentials, newest first."""
    organisation_id = visitor().organisation.id
    wanted = _wanted()
    mode = request.args.get("mode")
    with runtime().database.snapshot() as session:
        rows = listing.credentials_page(
            session,
            organisation_id,
            mode if mode in ("live", "test") else None,
            wanted=wanted,
            before=cursors.read(request.args.get("cursor")),
            limit=PAGE,
        )
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return render_template(
        "console/credentials.html",
        rows=rows[:PAGE],
        older=cursors.write((last.created_at, last.id)) if last is not None else None,
        is_first=not request.args.get("cursor"),
        wanted=wanted,
        filters={**wanted, **({"mode": mode} if mode else {})},
        states=STATES,
        today=runtime().today(),
    )


@pages.get("/credentials/<credential_id>")
def credential(credential_id: str) -> str:
    """Show one credential with its timeline."""
    rt = runtime()
    organisation_id = visitor().organisation.id
    row = None
    with rt.database.snapshot() as session:
        if is_id(credential_id, "cred"):
            row = listing.credential(session, organisation_id, None, credential_id)
        if row is None:
            raise Problem("not_found", "there is no such credential")
        entries = status.timeline(session, row.id)
        sent = {one.run_id: one for one in deliveries.of_credential(session, row.id)}
        leaf = log.leaf_of(session, row.id)
        purpose = status_lists.purpose_of(session, row.status_list_number)
        urls = {one.id: one.url for one in deliveries.endpoints_of(session, organisation_id, row.mode)}
    return render_template(
        "console/credential.html",
        row=row,
        entries=entries,
        sent=sent,
        leaf=leaf,
        urls=urls,
        today=rt.today(),
        now=rt.database.now(),
        page_url=rt.url(f"/c/{row.token}"),
        verbs=status_change.possible(row.state, purpose),
    )


def _wanted() -> dict[str, Any]:
    """Return what the address filters by; what makes no sense filters nothing."""
    wanted: dict[str, Any] = {}
    if request.args.get("state") in STATES:
        wanted["state"] = request.args["state"]
    if is_id(request.args.get("batch_id", ""), "bat"):
        wanted["batch_id"] = request.args["batch_id"]
    typed = request.args.get("q", "").replace("\0", "").strip()[:MOST_TYPED]
    if typed:
        wanted["q"] = typed
    return wanted
