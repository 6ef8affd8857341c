# SPDX-License-Identifier: Apache-2.0
"""Daily reports and webhook endpoints: what there is, read only."""

from __future__ import annotations

from flask import render_template

from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.store.queries import bookkeeping, deliveries
from conferral.web.console.door import pages, visitor
from conferral.web.site import runtime

SHOWN_DAYS = 90


@pages.get("/reports")
def reports() -> str:
    """List the daily reports, newest first."""
    with runtime().database.snapshot() as session:
        rows = bookkeeping.reports_of(session, visitor().organisation.id, SHOWN_DAYS)
    return render_template("console/reports.html", rows=rows)


@pages.get("/reports/<report_id>")
def report(report_id: str) -> str:
    """Show the figures of one day."""
    row = None
    if is_id(report_id, "rpt"):
        with runtime().database.snapshot() as session:
            row = bookkeeping.report(session, report_id)
    if row is None or row.organisation_id != visitor().organisation.id:
        raise Problem("not_found", "there is no such report")
    return render_template("console/report.html", row=row, figures=row.content["figures"])


@pages.get("/webhooks")
def webhooks() -> str:
    """List the webhook endpoints of both modes."""
    with runtime().database.snapshot() as session:
        rows = deliveries.endpoints_of(session, visitor().organisation.id)
    return render_template("console/webhooks.html", rows=rows, now=runtime().database.now())
