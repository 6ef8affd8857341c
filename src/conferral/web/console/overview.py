# SPDX-License-Identifier: Apache-2.0
"""The first page: what happened today, what needs a person, what to do next."""

from __future__ import annotations

from datetime import UTC, datetime, time

from flask import render_template

from conferral.reliable.dead_letters import Filter
from conferral.services import batching, operations
from conferral.store.queries import listing
from conferral.web.console.door import pages, visitor
from conferral.web.site import runtime

RECENT = 5


@pages.get("/")
def home() -> str:
    """Show counts of today and the newest credentials and batches."""
    rt = runtime()
    organisation_id = visitor().organisation.id
    midnight = datetime.combine(rt.today(), time(0), UTC)
    with rt.database.snapshot() as session:
        today = listing.counts_since(session, organisation_id, midnight)
        newest = listing.credentials_page(
            session, organisation_id, None, wanted={}, before=None, limit=RECENT
        )
        batches = listing.batches_page(session, organisation_id, None, before=None, limit=3)
        running = [(batching.progress(session, row), row) for row in batches[:3]]
        dead = operations.dead_of_organisation(session, organisation_id, Filter())
        leaders = operations.leaders(rt, session)
    return render_template(
        "console/home.html",
        today=today,
        today_date=rt.today(),
        credentials=newest[:RECENT],
        batches=running,
        causes=operations.by_cause(dead),
        dead_count=len(dead),
        missing_leaders=[one.name for one in leaders if not one.is_held],
    )
