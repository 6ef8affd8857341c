# SPDX-License-Identifier: Apache-2.0
"""`conferral batch`: issue a file of people, list batches, follow one.

Nothing is issued before it was said what will happen. Good rows never wait for bad ones; bad rows are
named, all at once, and kept in a file beside the original.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from conferral.cli import batch_file, batch_steering, installation, progress, showing
from conferral.cli.main import FAILED, INVALID, USAGE
from conferral.domain.problems import Problem
from conferral.services import admission, batching, reading_csv
from conferral.services.reading_csv import How, Reading
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import batch_failures, batches
from conferral.store.records import Record

LISTED = 20
SHOWN_FAILURES = 50  # more are on the batch's page
SAME_FILE_WITHIN = timedelta(hours=24)
_SECONDS = click.FloatRange(min=0.1)


@click.group()
def batch() -> None:
    """Issue many credentials from a file, and follow batches."""


batch_steering.add_to(batch)


@batch.command("issue")
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--template", required=True, metavar="NAME", help="Name or id of the template.")
@click.option("--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Which column a field is in.")
@click.option("--date-format", metavar="FORMAT", help="How dates are written, e.g. DD/MM/YYYY.")
@click.option("--name", help="Name of the batch (default: the file's).")
@click.option("--dry-run", is_flag=True, help="Check the file and issue nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--watch", is_flag=True, help="Follow the batch until it is finished; Ctrl-C detaches.")
@click.option("--timeout", type=_SECONDS, metavar="SECONDS", help="With --watch: give up watching (exit 7).")
@installation.with_json
@installation.for_organisation
@installation.in_mode
def issue(
    *, file: Path, template: str, mapping: tuple[str, ...], date_format: str | None, name: str | None,
    dry_run: bool, yes: bool, watch: bool, timeout: float | None, as_json: bool,
    organisation: str | None, live: bool,
) -> int:  # fmt: skip
    """Issue one credential for every row of a CSV file."""
    how = How(mapping=mapping, date_format=date_format)
    with batch_file.opened(file) as content, installation.opened() as rt:
        caller = installation.caller_of(rt, organisation, live=live)
        found = _template(rt, caller, template)
        with batch_file.to_mend() as bad:
            reading = reading_csv.read(rt, caller, found, content, how, to_mend=bad)
            kept = batch_file.keep(file, bad)
        batch_file.report(file, reading, kept, as_json=as_json)
        if dry_run or not reading.rows:
            return INVALID if reading.bad_rows or not reading.total else 0
        if not _is_confirmed(rt, caller, file, reading, yes=yes):
            return USAGE if not sys.stdin.isatty() else FAILED
        made = _create(rt, caller, found, reading, name or file.name)
        _announce(made, as_json=as_json)
        failed = FAILED if reading.bad_rows else 0
        if not watch:
            return failed
        return progress.watch(rt, made, timeout_seconds=timeout, as_json=as_json) or failed


@batch.command("list")
@click.option("--limit", type=click.IntRange(1, 200), default=LISTED, show_default=True, help="How many.")
@installation.with_json
@installation.for_organisation
def list_batches(limit: int, as_json: bool, organisation: str | None) -> None:
    """List batches, newest first."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.snapshot() as session:
            found = [
                {**batching.progress(session, row), "mode": row.mode}
                for row in batches.page(session, owner.id, limit)
            ]
    if as_json:
        for record in found:
            showing.emit(record)
        return
    showing.rows(("batch", "mode", "status", "rows", "issued", "failed", "made", "name"), map(_line, found))


@batch.command("status")
@click.argument("batch_id", metavar="ID")
@installation.with_json
@installation.for_organisation
def status(batch_id: str, as_json: bool, organisation: str | None) -> None:
    """Show a batch's counts and what failed."""
    with installation.opened() as rt:
        made = _named(rt, organisation, batch_id)
        with rt.database.snapshot() as session:
            counts = batching.progress(session, made)
            failures = batch_failures.failures(session, made.id, SHOWN_FAILURES)
    if as_json:
        showing.emit({**counts, "failures": [progress.failure_record(row) for row in failures]})
        return
    showing.say(f"{made.id}  {counts['status']}  {made.mode}  {made.name}")
    for step in progress.steps_of(counts, 0):
        showing.say(f"  {step}")
    for row in failures:
        showing.say(progress.failure_line(row))


@batch.command("watch")
@click.argument("batch_id", metavar="ID")
@click.option("--timeout", type=_SECONDS, metavar="SECONDS", help="Give up watching (exit 7).")
@installation.with_json
@installation.for_organisation
def watch_batch(batch_id: str, timeout: float | None, as_json: bool, organisation: str | None) -> int:
    """Follow a batch until it is finished; Ctrl-C detaches and the batch goes on."""
    with installation.opened() as rt:
        made = _named(rt, organisation, batch_id)
        return progress.watch(rt, made, timeout_seconds=timeout, as_json=as_json)


def _template(rt: Runtime, caller: Caller, named: str) -> Record:
    try:
        with rt.database.snapshot() as session:
            return admission.find_template(session, caller.organisation_id, named)
    except Problem as problem:
        raise Problem("template_unknown", f"--template: {problem.detail}") from None


def _is_confirmed(rt: Runtime, caller: Caller, file: Path, reading: Reading, *, yes: bool) -> bool:
    _warn_of_same_file(rt, caller, file, len(reading.rows))
    if yes:
        return True
    count = len(reading.rows)
    where = "by e-mail" if caller.mode == "live" else "to the captured mailbox (test mode)"
    what = (
        f"This will issue {count:,} credentials, add {count:,} log entries and send {count:,} mails {where}."
    )
    if not sys.stdin.isatty():
        showing.remark(f"conferral: {what} Say --yes to do it without being asked.")
        return False
    showing.remark(what)
    return click.confirm("Issue them?", default=False, err=True)


def _warn_of_same_file(rt: Runtime, caller: Caller, file: Path, count: int) -> None:
    since = rt.database.now() - SAME_FILE_WITHIN
    with rt.database.snapshot() as session:
        recent = batches.page(session, caller.organisation_id, LISTED)
    for row in recent:
        if (row.name, row.mode, row.total) == (file.name, caller.mode, count) and row.created_at > since:
            showing.remark(
                f"{file.name} with as many rows was issued as {row.id} at {showing.moment(row.created_at)}; "
                "issuing again makes new credentials and mails."
            )
            return


def _create(rt: Runtime, caller: Caller, template: Record, reading: Reading, name: str) -> Record:
    with rt.database.transaction() as session:
        batch_id = batching.create(rt, session, caller, template, reading.rows, name=name)
    with rt.database.snapshot() as session:
        made = batches.for_expanding(session, batch_id)
    if made is None:
        raise Problem("not_found", f"batch {batch_id} has vanished")
    return made


def _announce(made: Record, *, as_json: bool) -> None:
    if as_json:
        showing.emit({"event": "batch", "batch_id": made.id, "mode": made.mode, "total": made.total})
        return
    showing.say(
        f"{made.id}  {batch_file.rows_of(made.total)}  {made.mode} mode   conferral batch watch {made.id}"
    )


def _named(rt: Runtime, organisation: str | None, batch_id: str) -> Record:
    owner = installation.organisation_named(rt, organisation)
    with rt.database.snapshot() as session:
        found = batches.batch(session, owner.id, batch_id)
    if found is None:
        raise Problem("not_found", f"there is no batch {batch_id[:60]!r}; see `conferral batch list`")
    return found


def _line(record: dict[str, Any]) -> tuple[object, ...]:
    step = progress.steps_of(record, 0)[0]
    made = record["created_at"][:19].replace("T", " ")
    return (
        record["batch_id"], record["mode"], record["status"], record["total"], step.done, step.failed,
        made, record["name"],
    )  # fmt: skip
