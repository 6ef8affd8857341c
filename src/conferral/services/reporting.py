# SPDX-License-Identifier: Apache-2.0
"""The daily issuance report: stored, readable, and mailed to the organisation's owners."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.reliable.promises import BULK, Promise, promise_all
from conferral.reliable.runs import Run
from conferral.services import emailing
from conferral.services.runtime import Runtime
from conferral.store.queries import bookkeeping, deliveries, reports, tenancy
from conferral.store.records import Record

TASK: Final = "tasks.reports.generate_daily_issuance_report"


def generate_daily(rt: Runtime, run: Run) -> None:
    """Report on yesterday (UTC) for every organisation; a day that has a report keeps it."""
    until = datetime.combine(rt.today(), time(0), UTC)
    since = until - timedelta(days=1)
    with rt.database.snapshot() as session:
        organisations = tenancy.all_organisations(session)
    written = 0
    for organisation in organisations:
        with rt.database.transaction() as session:
            written += _report(rt, session, organisation, since, until)
    with rt.database.transaction() as session:
        run.settle(session, {"reports": written})


def _report(rt: Runtime, session: Session, organisation: Record, since: datetime, until: datetime) -> int:
    report_id = rt.new_id("rpt")
    is_new = bookkeeping.add_report(
        session,
        id=report_id,
        organisation_id=organisation.id,
        day=since.date(),
        content={"figures": reports.figures(session, organisation.id, since, until)},
        created_at=rt.database.now(),
    )
    if is_new:
        _promise_mails(rt, session, organisation, report_id)
    return int(is_new)


def _promise_mails(rt: Runtime, session: Session, organisation: Record, report_id: str) -> None:
    domain = rt.mail_from.rpartition("@")[2]
    now = rt.database.now().replace(microsecond=0)
    rows: list[dict[str, Any]] = []
    promised: list[Promise] = []
    for owner in tenancy.owners(session, organisation.id):
        delivery_id = rt.new_id("dlv")
        rows.append(
            {
                "id": delivery_id,
                "organisation_id": organisation.id,
                "mode": "live" if rt.has_mail_server else "test",
                "channel": "email",
                "kind": "daily_report",
                "revision": 1,
                "report_id": report_id,
                "recipient": owner.email,
                "locale": "en",
                "message_id": f"<{report_id}.{owner.id}.1@{domain}>",
                "state": "pending",
                "possible_duplicate": False,
                "created_at": now,
            }
        )
        promised.append(
            Promise(
                task=emailing.REPORT_TASK,
                args=[delivery_id],
                key=f"mail:{report_id}:{owner.id}:1",
                subject=report_id,
                tenant=organisation.id,
                priority=BULK,
            )
        )
    deliveries.add_all(session, rows)
    ids = promise_all(session, promised)
    deliveries.set_runs(session, [(row["id"], run_id) for row, run_id in zip(rows, ids, strict=True)])
