# SPDX-License-Identifier: Apache-2.0
"""`conferral supersede`: issue a corrected credential; the commit that issues it ends the old one.

One by its options, or many from a CSV file: a column `credential` with ids or external ids, and a column for
each value to be corrected. Corrections that were made already are not made again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from conferral.cli import installation, showing
from conferral.cli.main import FAILED, USAGE
from conferral.domain.problems import Problem
from conferral.services import superseding
from conferral.services.issuing import Accepted
from conferral.services.runtime import Caller, Runtime
from conferral.services.superseding import Changes
from conferral.store.queries import standings

NAMED = "credential"  # the column that says which one is corrected
OWN = {"name": "recipient_name", "email": "recipient_email", "locale": "locale", "issued_on": "issued_on",
       "expires_on": "expires_on", "new_external_id": "external_id"}  # fmt: skip
MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Correction:
    """One row: its number in the file (1 is the first data row), whom it corrects, and how."""

    number: int
    named: str
    changes: Changes


@click.command()
@click.argument("named", required=False, metavar="[CREDENTIAL]")
@click.option("--name", help="The recipient's name as it should be.")
@click.option("--email", help="The recipient's e-mail address as it should be.")
@click.option("--locale", help="Language of mail and page.")
@click.option("--field", "fields", multiple=True, metavar="FIELD=VALUE", help="A field; empty removes it.")
@click.option("--issued-on", metavar="YYYY-MM-DD", help="Date of issue (default: as before).")
@click.option("--expires-on", metavar="YYYY-MM-DD", help="Last day of validity; empty removes it.")
@click.option("--new-external-id", help="Your own id of the corrected one; the old one keeps its own.")
@click.option("--template", metavar="NAME", help="Another template.")
@click.option(
    "--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="Many: CSV with the column `credential` and one for each value to be corrected.",
)  # fmt: skip
@installation.with_json
@installation.for_organisation
@installation.in_mode
def supersede(
    *, named: str | None, name: str | None, email: str | None, locale: str | None, fields: tuple[str, ...],
    issued_on: str | None, expires_on: str | None, new_external_id: str | None, template: str | None,
    file: Path | None, as_json: bool, organisation: str | None, live: bool,
) -> int:  # fmt: skip
    """Replace a credential by a corrected one."""
    pairs = [pair.partition("=") for pair in fields]
    if bool(named) == bool(file) or any(not key.strip() or not equals for key, equals, _ in pairs):
        showing.remark("conferral: name a credential or a --file; write fields as --field course=Databases")
        return USAGE
    with installation.opened() as rt:
        caller = installation.caller_of(rt, organisation, live=live)
        if file is not None:
            return _file(rt, caller, list(_rows(file)), as_json=as_json)
        changes = Changes(
            recipient_name=name, recipient_email=email, locale=locale, issued_on=issued_on,
            expires_on=expires_on, external_id=new_external_id, template=template,
            fields={key.strip(): value for key, _, value in pairs},
        )  # fmt: skip
        _say(_correct(rt, caller, Correction(0, str(named), changes)), str(named), as_json=as_json)
    return 0


def _file(rt: Runtime, caller: Caller, rows: list[Correction], *, as_json: bool) -> int:
    failed = 0
    for row in rows:
        try:
            accepted = _correct(rt, caller, row)
        except Problem as problem:
            failed += 1
            wrong = "; ".join(f"{one.pointer}: {one.detail}" for one in problem.errors) or problem.detail
            if as_json:
                showing.emit(
                    {"event": "refused", "row": row.number, "credential": row.named, "code": problem.code,
                     "detail": wrong}
                )  # fmt: skip
            else:
                line = f"row {row.number}, {row.named[:60]}: {wrong} [{problem.code}]"
                showing.say(showing.painted(line, showing.RED))
        else:
            _say(accepted, row.named, as_json=as_json)
    if not as_json:
        showing.say(f"{len(rows) - failed:,} of {len(rows):,} are corrected")
    return FAILED if failed else 0


def _correct(rt: Runtime, caller: Caller, row: Correction) -> Accepted:
    with rt.database.transaction() as session:
        known = standings.ids_of(session, caller.organisation_id, caller.mode, [row.named])
        if row.named not in known:
            raise Problem("not_found", f"no credential in {caller.mode} mode is called {row.named[:60]!r}")
        return superseding.request(rt, session, caller, known[row.named], row.changes)


def _rows(file: Path) -> Iterator[Correction]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if NAMED not in (reader.fieldnames or ()):
            raise Problem("csv_column_missing", f"{file} needs a column {NAMED!r} with ids or external ids")
        for number, row in enumerate(reader, start=1):
            if number > MAX_ROWS:
                raise Problem("too_many_rows", f"{file} has more than {MAX_ROWS:,} rows; split it")
            # An empty cell corrects nothing: a whole table may be sent back with a few cells mended.
            given = {
                key.strip(): value.strip() for key, value in row.items() if key and value and value.strip()
            }
            named = given.pop(NAMED, "")
            own = {OWN[key]: given.pop(key) for key in OWN if key in given}
            yield Correction(number, named, Changes(fields=given, **own))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Problem("csv_unreadable", f"{file} cannot be read as CSV in UTF-8") from error


def _say(accepted: Accepted, named: str, *, as_json: bool) -> None:
    if as_json:
        showing.emit(
            {
                "credential_id": accepted.credential_id, "task_id": accepted.run_id,
                "status": accepted.state, "supersedes": named,
            }
        )  # fmt: skip
        return
    known = "" if accepted.is_new else "  (known already)"
    showing.say(f"{accepted.credential_id}  {accepted.state}  replaces {named}{known}")
