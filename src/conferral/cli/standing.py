# SPDX-License-Identifier: Apache-2.0
"""`conferral revoke`, `suspend`, `reinstate`: by id, by external id, from a file, or a whole batch.

One is changed in one commit, many in chunks, so an interrupted command is simply repeated; a batch is changed
by the workers. What will be done is said before it is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from conferral.cli import installation, showing, tasks
from conferral.cli.main import CONFLICT, FAILED, NOT_FOUND, USAGE
from conferral.cli.progress import LOOK_SECONDS, STILL_RUNNING
from conferral.domain.problems import Problem
from conferral.domain.status_change import REASONS, VERBS, Verb
from conferral.reliable import status
from conferral.services import changing_batches, changing_status
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import standings

ONE_BY_ONE = 20  # with more than these, nobody reads a line for each
SHOWN_REFUSALS = 20
MAX_NAMES = 100_000
WAIT_SECONDS = 600.0


def _command(verb: Verb, said: str) -> click.Command:
    """Return the command of one verb; all three take the same options."""

    @click.command(verb.name, help=said)
    @click.argument("names", nargs=-1, metavar="[CREDENTIAL]...")
    @click.option("--external-id", "external_ids", multiple=True, help="Your own id of one; repeat it.")
    @click.option(
        "--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
        help="Ids or external ids, one a line; `-` reads stdin.",
    )  # fmt: skip
    @click.option("--batch", "batch_id", metavar="ID", help="All of a batch.")
    @click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
    @click.option(
        "--timeout", type=click.FloatRange(min=0.1), default=WAIT_SECONDS, show_default=True,
        metavar="SECONDS", help="With --batch: give up waiting (exit 7); the batch goes on.",
    )  # fmt: skip
    @installation.with_json
    @installation.for_organisation
    @installation.in_mode
    def command(
        *, names: tuple[str, ...], external_ids: tuple[str, ...], file: Path | None, batch_id: str | None,
        yes: bool, timeout: float, as_json: bool, organisation: str | None, live: bool,
        reason: str | None = None,
    ) -> int:  # fmt: skip
        wanted = _names(names, external_ids, file)
        if bool(wanted) == bool(batch_id):
            showing.remark(f"conferral: say which credentials to {verb.name}, or --batch ID")
            return USAGE
        with installation.opened() as rt:
            caller = installation.caller_of(rt, organisation, live=live)
            if batch_id:
                return _batch(rt, caller, verb, batch_id, reason, yes=yes, timeout=timeout, as_json=as_json)
            return _several(rt, caller, verb, wanted, reason, yes=yes, as_json=as_json)

    if verb.name != "reinstate":
        choice = click.Choice(REASONS)
        command = click.option("--reason", type=choice, metavar="CODE", help=f"Why: {', '.join(REASONS)}.")(
            command
        )
    return command


def _names(names: Sequence[str], external_ids: Sequence[str], file: Path | None) -> list[str]:
    """Return what was named, each once, in order."""
    lines: list[str] = []
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise Problem("csv_unreadable", f"{file} cannot be read as UTF-8 text") from error
        lines = [line.strip().strip('"') for line in text.splitlines()]
    found = list(dict.fromkeys(name for name in (*names, *external_ids, *lines) if name))
    if len(found) > MAX_NAMES:
        raise Problem("too_many_rows", f"{len(found)} ids; at most {MAX_NAMES} at a time")
    return found


def _several(
    rt: Runtime, caller: Caller, verb: Verb, names: Sequence[str], reason: str | None,
    *, yes: bool, as_json: bool,
) -> int:  # fmt: skip
    with rt.database.snapshot() as session:
        known: dict[str, str] = {}
        for at in range(0, len(names), changing_status.MANY):
            chunk = names[at : at + changing_status.MANY]
            known |= standings.ids_of(session, caller.organisation_id, caller.mode, chunk)
    unknown = [name for name in names if name not in known]
    if unknown:
        where = "live" if caller.mode == "live" else "test"
        shown = ", ".join(name[:60] for name in unknown[:5])
        showing.remark(f"conferral: no credential in {where} mode is called {shown}; nothing was changed")
        return NOT_FOUND
    ids = list(dict.fromkeys(known[name] for name in names))
    if len(ids) == 1:
        return _one(rt, caller, verb, ids[0], reason, as_json=as_json)
    if not yes and not _is_confirmed(verb, len(ids)):
        return USAGE if not sys.stdin.isatty() else FAILED
    return _chunks(rt, caller, verb, ids, reason, as_json=as_json)


def _one(
    rt: Runtime, caller: Caller, verb: Verb, credential_id: str, reason: str | None, *, as_json: bool
) -> int:
    with rt.database.transaction() as session:
        changed = changing_status.change(rt, session, caller, verb, credential_id, reason=reason)
    if as_json:
        showing.emit(
            {
                "credential_id": changed.credential_id, "status": changed.state, "reason": changed.reason,
                "changed_at": changed.changed_at, "task_ids": list(changed.run_ids),
            }
        )  # fmt: skip
        return 0
    known = "" if changed.is_new else "  (since before)"
    showing.say(f"{changed.credential_id}  {changed.state}  {showing.moment(changed.changed_at)}{known}")
    return 0


def _chunks(
    rt: Runtime, caller: Caller, verb: Verb, ids: Sequence[str], reason: str | None, *, as_json: bool
) -> int:
    change_id = rt.new_id("chg")
    changed = 0
    refused: dict[str, str] = {}
    for at in range(0, len(ids), changing_status.MANY):
        chunk = ids[at : at + changing_status.MANY]
        is_last = at + len(chunk) == len(ids)
        with rt.database.transaction() as session:
            done = changing_status.change_many(
                rt, session, caller, verb, chunk, reason=reason, group=change_id, is_last=is_last
            )
        changed += len(done.changed)
        refused |= done.unchanged
        if as_json:
            showing.emit({"event": "progress", "done": at + len(chunk), "of": len(ids), "changed": changed})
        elif len(ids) > changing_status.MANY:
            showing.remark(f"{at + len(chunk):,} of {len(ids):,}")
    return _told(verb, change_id, changed, refused, as_json=as_json)


def _told(verb: Verb, change_id: str, changed: int, refused: dict[str, str], *, as_json: bool) -> int:
    conflicts = {name: why for name, why in refused.items() if not why.endswith("already")}
    if as_json:
        showing.emit(
            {
                "event": "done",
                "change_id": change_id,
                "changed": changed,
                "unchanged": dict(sorted(refused.items())),
            }
        )
    else:
        showing.say(f"{changed:,} {verb.target}, {len(refused):,} left as they were")
        for name, why in sorted(conflicts.items())[:SHOWN_REFUSALS]:
            showing.say(showing.painted(f"  {name}: {why}", showing.YELLOW))
        if len(conflicts) > SHOWN_REFUSALS:
            showing.say(f"  … and {len(conflicts) - SHOWN_REFUSALS:,} more")
    return CONFLICT if conflicts and not changed else FAILED if conflicts else 0


def _batch(
    rt: Runtime, caller: Caller, verb: Verb, batch_id: str, reason: str | None,
    *, yes: bool, timeout: float, as_json: bool,
) -> int:  # fmt: skip
    if not yes:
        with rt.database.snapshot() as session:
            batch = changing_batches.named(session, caller, batch_id)
            counts = changing_batches.preview(session, batch, verb)
        if not _is_confirmed(verb, counts.affected):
            return USAGE if not sys.stdin.isatty() else FAILED
    with rt.database.transaction() as session:
        counts, run_id = changing_batches.request(rt, session, caller, verb, batch_id, reason=reason)
    record: dict[str, Any] = {"batch_id": batch_id, "affected": counts.affected, "others": counts.others}
    if as_json:
        showing.emit({"event": "promised", **record, "task_id": run_id})
    else:
        others = ", ".join(f"{count:,} {state}" for state, count in counts.others.items())
        showing.say(f"{batch_id}  {counts.affected:,} to {verb.name}" + (f"; not {others}" if others else ""))
    return 0 if run_id is None else _follow(rt, verb, batch_id, counts.affected, timeout, as_json=as_json)


def _follow(rt: Runtime, verb: Verb, batch_id: str, affected: int, timeout: float, *, as_json: bool) -> int:
    """Say how far the workers are, until nothing is left to do; Ctrl-C leaves them at it."""
    deadline = time.monotonic() + timeout
    said = -1
    while True:
        with rt.database.snapshot() as session:
            left = changing_batches.left(session, batch_id, verb)
            entries = status.timeline(session, batch_id)
        done = affected - left
        if done != said:
            said = done
            if as_json:
                showing.emit({"event": "progress", "done": done, "of": affected})
            else:
                showing.say(f"  {done:,} of {affected:,} {verb.target}")
        ours = [entry.run for entry in entries if entry.run.task == changing_batches.TASK]
        if all(run.state in tasks.FINAL for run in ours):
            return 0 if left == 0 else FAILED
        if time.monotonic() >= deadline:
            showing.remark(
                f"Still running after {timeout:g} s; it goes on: conferral batch status {batch_id}"
            )
            return STILL_RUNNING
        time.sleep(LOOK_SECONDS)


def _is_confirmed(verb: Verb, count: int) -> bool:
    what = f"This will {verb.name} {count:,} credentials and tell their recipients."
    if not sys.stdin.isatty():
        showing.remark(f"conferral: {what} Say --yes to do it without being asked.")
        return False
    showing.remark(what)
    return click.confirm(f"{verb.name.capitalize()} them?", default=False, err=True)


revoke = _command(VERBS["revoke"], "Withdraw credentials for good.")
suspend = _command(VERBS["suspend"], "Pause credentials of a suspendable template.")
reinstate = _command(VERBS["reinstate"], "Put suspended credentials into force again.")
