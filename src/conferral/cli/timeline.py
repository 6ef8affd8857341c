# SPDX-License-Identifier: Apache-2.0
"""`conferral timeline`: everything that was promised for a credential, each attempt with its evidence."""

from __future__ import annotations

from typing import Any

import click

from conferral.cli import installation, showing, tasks
from conferral.domain.problems import Problem
from conferral.reliable import status
from conferral.reliable.status import TimelineEntry
from conferral.services.runtime import Runtime
from conferral.store.queries import credentials, deliveries
from conferral.store.records import Record


@click.command()
@click.argument("credential_id", metavar="CREDENTIAL")
@installation.with_json
def timeline(credential_id: str, as_json: bool) -> None:
    """Show everything that happened to a credential."""
    with installation.opened() as rt:
        with rt.database.snapshot() as session:
            found = credentials.work(session, credential_id)
            entries = status.timeline(session, credential_id)
            sent = {row.run_id: row for row in deliveries.of_credential(session, credential_id)}
        if found is None:
            raise Problem("not_found", f"there is no credential {credential_id[:60]!r}")
        if as_json:
            showing.emit(_credential(rt, found))
            for entry in entries:
                showing.emit(_entry(entry, sent.get(entry.run.id)))
            return
        _show(rt, found, entries, sent)


def _show(rt: Runtime, found: Record, entries: list[TimelineEntry], sent: dict[str, Record]) -> None:
    title = found.fields.get("course", found.template_name)
    showing.say(f"{found.id}  {found.recipient_name} · {title}  {found.state.upper()}  ({found.mode} mode)")
    if found.vc_sha256 is not None:
        showing.say(f"  page     {rt.url(f'/c/{found.token}')}")
        showing.say(f"  signed   {found.verification_method}")
        showing.say(f"  sha256   PDF {found.pdf_sha256}, credential {found.vc_sha256}")
    if found.failure_code is not None:
        showing.say(f"  failed   {found.failure_detail} [{found.failure_code}]")
    showing.say(f"  accepted {showing.moment(found.created_at)}")
    for entry in entries:
        delivery = sent.get(entry.run.id)
        showing.say()
        showing.say(tasks.line_of(entry.run, possible_duplicate=_is_duplicate(delivery)))
        if delivery is not None and delivery.message_id is not None:
            showing.say(f"      {delivery.message_id}")
        for attempt in entry.attempts:
            showing.say(tasks.attempt_line(attempt))


def _credential(rt: Runtime, found: Record) -> dict[str, Any]:
    return {
        "kind": "credential",
        "id": found.id,
        "state": found.state,
        "mode": found.mode,
        "organisation_id": found.organisation_id,
        "batch_id": found.batch_id,
        "batch_row": found.batch_row,
        "external_id": found.external_id,
        "page": rt.url(f"/c/{found.token}"),
        "pdf_sha256": found.pdf_sha256,
        "vc_sha256": found.vc_sha256,
        "failure": tasks.error_of(found.failure_code, found.failure_detail),
        "created_at": found.created_at,
        "issued_at": found.issued_at,
    }


def _entry(entry: TimelineEntry, delivery: Record | None) -> dict[str, Any]:
    return {
        "kind": "run",
        **tasks.record_of(entry.run, possible_duplicate=_is_duplicate(delivery)),
        "message_id": delivery.message_id if delivery is not None else None,
        "event_id": delivery.event_id if delivery is not None else None,
        "attempts": [tasks.attempt_record(attempt) for attempt in entry.attempts],
    }


def _is_duplicate(delivery: Record | None) -> bool:
    return bool(delivery is not None and delivery.possible_duplicate)
