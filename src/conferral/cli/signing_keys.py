# SPDX-License-Identifier: Apache-2.0
"""`conferral signing-keys`: what an organisation signs with: list, rotate, withdraw, export.

This process holds no master key: it asks, a worker of the issuance pool does it, and the command waits.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import click

from conferral.cli import installation, showing, waiting
from conferral.cli.main import CONFLICT
from conferral.domain.credential import Mode
from conferral.services import archiving_keys, rotating_keys, signing_keys
from conferral.services.rotating_keys import Requested
from conferral.services.runtime import Runtime

WAIT_SECONDS = 60.0
MODES: tuple[Mode, ...] = ("live", "test")


def _that_waits(function: Any) -> Any:
    said = "Give up waiting (exit 7); the change goes on."
    return click.option(
        "--timeout", type=click.FloatRange(min=0.1), default=WAIT_SECONDS, show_default=True,
        metavar="SECONDS", help=said,
    )(function)  # fmt: skip


@click.group("signing-keys")
def group() -> None:
    """List, rotate, withdraw and export the keys that credentials are signed with."""


@group.command("list")
@installation.for_organisation
@installation.with_json
def list_keys(organisation: str | None, as_json: bool) -> None:
    """List every key that ever signed, in both modes, oldest first."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.snapshot() as session:
            found = [
                {"mode": mode, **archiving_keys.described(key)}
                for mode in MODES
                for key in signing_keys.keys_of(session, owner.id, mode)
            ]
    if as_json:
        for row in found:
            showing.emit(row)
        return
    header = ("key", "mode", "state", "made", "retired", "withdrawn", "verification method")
    parts = ("mode", "state", "created_at", "retired_at", "withdrawn_at", "verification_method")
    showing.rows(header, ((f"k{row['number']}", *(row[part] for part in parts)) for row in found))


@group.command("rotate")
@_that_waits
@installation.for_organisation
@installation.with_json
def rotate(timeout: float, organisation: str | None, as_json: bool) -> int:
    """Sign with a new key from now on; everything signed before stays valid."""
    with installation.opened() as rt:
        caller = installation.caller_of(rt, organisation, live=True)
        with rt.database.transaction() as session:
            asked = rotating_keys.request_rotation(rt, session, caller)
        return _reported(rt, asked, timeout, as_json=as_json)


@group.command("withdraw")
@click.argument("number", metavar="KEY")
@click.option(
    "--compromised-at", required=True, metavar="DATE",
    help="Since when somebody else may have had the key: YYYY-MM-DD, or a time with its zone.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@_that_waits
@installation.for_organisation
@installation.with_json
def withdraw(
    *, number: str, compromised_at: str, yes: bool, timeout: float, organisation: str | None, as_json: bool
) -> int:
    """Withdraw a stolen key (`k1`): what it signed is signed again and its recipients are told."""
    since = rotating_keys.moment_of(compromised_at)
    wanted = number.removeprefix("k")
    if not wanted.isdecimal():
        raise click.UsageError("name the key as the list does: k1")
    with installation.opened() as rt:
        caller = installation.caller_of(rt, organisation, live=True)
        if not yes and not click.confirm(_warning(number), err=True):
            return CONFLICT
        with rt.database.transaction() as session:
            asked = rotating_keys.request_withdrawal(rt, session, caller, int(wanted), since)
        code = _reported(rt, asked, timeout, as_json=as_json)
    if code == 0 and not as_json:
        showing.remark("What it signed is now signed again in the background; the recipients get a mail.")
    return code


@group.command("export")
@click.option("--live/--test", "live", default=True, show_default=True, help="Whose keys.")
@click.option(
    "--archive", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write a zip with the log's proof of every credential, too, instead of the document alone.",
)  # fmt: skip
@installation.for_organisation
def export(*, live: bool, archive: Path | None, organisation: str | None) -> None:
    """Print the DID document, or archive all public evidence: nothing secret is in either."""
    mode: Mode = "live" if live else "test"
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        made = archiving_keys.files(rt, owner.id, mode)
        if archive is None:
            showing.say(next(made)[1])
            made.close()
            return
        count = 0
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in made:
                packed.writestr(name, content)
                count += name.startswith("proofs/")
    showing.remark(f"{archive}: the DID document, the keys, and {count} proofs")


def _warning(number: str) -> str:
    return (
        f"Everything that {number} signed will be signed again and every recipient gets a mail; copies they "
        "hold show REPLACED. This cannot be undone. Withdraw it?"
    )


def _reported(rt: Runtime, asked: Requested, timeout: float, *, as_json: bool) -> int:
    """Wait for the run, then say how it went."""
    if not as_json:
        showing.remark(f"{asked.key.verification_method}: asked for; task {asked.run_id}")
    code = waiting.report(rt, asked.run_id, timeout, as_json=as_json)
    if code == 0 and not as_json:
        with rt.database.snapshot() as session:
            now = signing_keys.keys_of(session, asked.organisation_id, "live")
        current = next(key for key in now if key.state == "current")
        showing.say(f"signs now: {current.verification_method}")
    return code
