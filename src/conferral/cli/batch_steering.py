# SPDX-License-Identifier: Apache-2.0
"""`conferral batch pause|resume|cancel|retry|results`: what is done to a batch after it was made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from conferral.cli import installation, showing
from conferral.domain.problems import Problem
from conferral.services import steering_batches
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import batches
from conferral.store.records import Record

ACTOR = "command line"
_VERBS = {
    "pause": (steering_batches.pause, "{affected:,} rows wait until the batch is resumed"),
    "resume": (steering_batches.resume, "{affected:,} rows go on"),
    "cancel": (steering_batches.cancel, "{affected:,} rows will not be issued; what has begun is finished"),
    "retry": (steering_batches.retry, "{affected:,} rows are tried again"),
}


def add_to(group: click.Group) -> None:
    """Add the commands to `conferral batch`."""
    for command in (pause, resume, cancel, retry, results):
        group.add_command(command)


def _steering(function: Callable[..., None]) -> Callable[..., None]:
    with_options = installation.for_organisation(function)
    with_options = installation.with_json(with_options)
    return click.argument("batch_id", metavar="ID")(with_options)


@click.command()
@_steering
def pause(batch_id: str, as_json: bool, organisation: str | None) -> None:
    """Let nothing of a batch begin; what has begun is finished."""
    _steer("pause", batch_id, organisation, as_json=as_json)


@click.command()
@_steering
def resume(batch_id: str, as_json: bool, organisation: str | None) -> None:
    """Let a paused batch go on."""
    _steer("resume", batch_id, organisation, as_json=as_json)


@click.command()
@_steering
def cancel(batch_id: str, as_json: bool, organisation: str | None) -> None:
    """Begin no further row of a batch; those not begun fail as `cancelled`."""
    _steer("cancel", batch_id, organisation, as_json=as_json)


@click.command()
@_steering
def retry(batch_id: str, as_json: bool, organisation: str | None) -> None:
    """Do failed, cancelled and missing rows again, each under its own identity."""
    _steer("retry", batch_id, organisation, as_json=as_json)


@click.command()
@click.argument("batch_id", metavar="ID")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to a file.")
@installation.for_organisation
def results(batch_id: str, out: Path | None, organisation: str | None) -> None:
    """Write every row with its state, reason and links as CSV."""
    with installation.opened() as rt:
        batch = _named(rt, organisation, batch_id)
        lines = steering_batches.results(rt, batch)
        if out is None:
            sys.stdout.writelines(lines)
            return
        try:
            with out.open("w", encoding="utf-8", newline="") as file:
                file.writelines(lines)
        except OSError as error:
            raise Problem("not_found", f"{out} cannot be written: {error.strerror}") from None


def _steer(name: str, batch_id: str, organisation: str | None, *, as_json: bool) -> None:
    verb, says = _VERBS[name]
    with installation.opened() as rt:
        batch = _named(rt, organisation, batch_id)
        who = Caller(batch.organisation_id, batch.mode, ACTOR, frozenset())
        with rt.database.transaction() as session:
            done = verb(rt, session, who, batch.id)
    if as_json:
        told = {"affected": done.affected, "others": done.others, "task_id": done.run_id}
        showing.emit({"event": name, "batch_id": batch.id, **told})
        return
    showing.say(f"{batch.id}  {says.format(affected=done.affected)}")


def _named(rt: Runtime, organisation: str | None, batch_id: str) -> Record:
    owner = installation.organisation_named(rt, organisation)
    with rt.database.snapshot() as session:
        found = batches.batch(session, owner.id, batch_id)
    if found is None:
        raise Problem("not_found", f"there is no batch {batch_id[:60]!r}; see `conferral batch list`")
    return found
