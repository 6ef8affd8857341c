# SPDX-License-Identifier: Apache-2.0
"""`conferral dead`: what failed for good, by cause; replayed or given up by a person.

A replay keeps each run's identity, so nothing is sent under a second one. What is meant is always said:
by ids, by code, by task, or `--all`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from conferral.cli import installation, showing, tasks
from conferral.cli.main import FAILED, NOT_FOUND, USAGE
from conferral.domain.problems import PROBLEMS, Problem
from conferral.reliable import dead_letters, status
from conferral.reliable.dead_letters import Cause, Filter
from conferral.reliable.tables import FAILURE
from conferral.services.runtime import Runtime
from conferral.store.queries import bookkeeping

LISTED = 20
_AnyFunction = TypeVar("_AnyFunction", bound=Callable[..., Any])
_Change = Callable[[Session, Filter], list[str]]


def _chosen(function: _AnyFunction) -> _AnyFunction:
    for option in (
        click.option("--task", metavar="TASK", help="Only this task, e.g. tasks.webhooks.post_event."),
        click.option("--code", metavar="CODE", help="Only this cause, e.g. smtp_unreachable."),
    ):
        function = option(function)
    return installation.for_organisation(function)


@click.group()
def dead() -> None:
    """List, show, replay and discard what failed for good."""


@dead.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=LISTED, show_default=True, help="How many.")
@_chosen
@installation.with_json
def list_dead(
    limit: int, task: str | None, code: str | None, organisation: str | None, as_json: bool
) -> None:
    """List dead letters, oldest first, with how many there are of each cause."""
    with installation.opened() as rt:
        wanted = _filter(rt, (), task, code, organisation)
        with rt.database.snapshot() as session:
            causes = dead_letters.causes(session, wanted)
            found = dead_letters.listed(session, wanted, limit=limit)
    if as_json:
        for row in found:
            showing.emit(_record(row))
        return
    if not found:
        showing.say("No dead letters.")
        return
    for cause in causes:
        showing.say(_cause(cause))
    showing.say()
    header = ("task id", "what", "code", "about", "attempts", "failed at")
    lines = (
        (
            row.id,
            tasks.name_of(row.task),
            row.error_code,
            row.subject,
            row.attempt - row.snoozes,
            row.finished_at,
        )
        for row in found
    )
    showing.rows(header, lines)


@dead.command("show")
@click.argument("task_id", metavar="ID")
@installation.with_json
def show(task_id: str, as_json: bool) -> None:
    """Show one dead letter with its attempts and what can be done."""
    with installation.opened() as rt, rt.database.snapshot() as session:
        found = dead_letters.listed(session, Filter(run_ids=(task_id,)), limit=1)
        if not found:
            raise Problem("not_found", f"there is no dead letter {task_id[:60]!r}; see `conferral dead list`")
        entries = status.timeline(session, found[0].subject) if found[0].subject else []
        history = next((entry.attempts for entry in entries if entry.run.id == task_id), ())
    row = found[0]
    if as_json:
        showing.emit({**_record(row), "attempts": [tasks.attempt_record(one) for one in history]})
        return
    showing.say(f"{row.id}  {tasks.name_of(row.task)}  {row.subject or ''}")
    showing.say(f"  {row.error_detail} [{row.error_code}]")
    known = PROBLEMS.get(row.error_code or "")
    if known is not None:
        showing.say(f"  {known.title}. {known.cure}")
    for attempt in history:
        showing.say(tasks.attempt_line(attempt))


@dead.command("replay")
@click.argument("task_ids", nargs=-1, metavar="[ID]...")
@_chosen
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--preview", is_flag=True, help="Count and change nothing.")
@installation.with_json
def replay(
    *, task_ids: tuple[str, ...], task: str | None, code: str | None, organisation: str | None,
    everything: bool, preview: bool, as_json: bool,
) -> int:  # fmt: skip
    """Try dead letters again, under their old identity."""
    if not (task_ids or task or code or everything):
        return _say_what()
    with installation.opened() as rt:
        wanted = _filter(rt, task_ids, task, code, organisation)
        if preview:
            return _preview(rt, wanted, "replay", as_json=as_json)
        done = _change(rt, wanted, dead_letters.replay, "dead_letter.replayed")
    return _report("replayed", done, task_ids, as_json=as_json)


@dead.command("discard")
@click.argument("task_ids", nargs=-1, metavar="[ID]...")
@_chosen
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--preview", is_flag=True, help="Count and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@installation.with_json
def discard(
    *, task_ids: tuple[str, ...], task: str | None, code: str | None, organisation: str | None,
    everything: bool, preview: bool, yes: bool, as_json: bool,
) -> int:  # fmt: skip
    """Give dead letters up for good; they stay in the history as cancelled."""
    if not (task_ids or task or code or everything):
        return _say_what()
    with installation.opened() as rt:
        wanted = _filter(rt, task_ids, task, code, organisation)
        if preview:
            return _preview(rt, wanted, "discard", as_json=as_json)
        if not yes and sys.stdin.isatty():
            _preview(rt, wanted, "discard", as_json=False)
            if not click.confirm("Give them up for good?", default=False, err=True):
                return FAILED
        done = _change(rt, wanted, dead_letters.discard, "dead_letter.discarded")
    return _report("discarded", done, task_ids, as_json=as_json)


def _filter(
    rt: Runtime, task_ids: Sequence[str], task: str | None, code: str | None, organisation: str | None
) -> Filter:
    tenant = installation.organisation_named(rt, organisation).id if organisation else None
    return Filter(task=task, code=code, tenant=tenant, run_ids=tuple(task_ids) or None)


def _preview(rt: Runtime, wanted: Filter, verb: str, *, as_json: bool) -> int:
    with rt.database.snapshot() as session:
        causes = dead_letters.causes(session, wanted)
    if as_json:
        for cause in causes:
            showing.emit(
                {"task": cause.task, "code": cause.code, "count": cause.count, "oldest": cause.oldest}
            )
        return 0
    showing.say(f"Would {verb} {sum(cause.count for cause in causes)}:")
    for cause in causes:
        showing.say(_cause(cause))
    return 0


def _change(rt: Runtime, wanted: Filter, change: _Change, action: str) -> list[str]:
    """Change page after page, each with its audit lines in one commit, until nothing is left."""
    done: list[str] = []
    while True:
        with rt.database.transaction() as session:
            changed = change(session, wanted)
            for run_id in changed:
                bookkeeping.audit(
                    session, organisation_id=None, actor=installation.ACTOR, action=action,
                    subject=run_id, created_at=rt.database.now(),
                )  # fmt: skip
        done += changed
        if len(changed) < dead_letters.PAGE:
            return done


def _report(word: str, done: Sequence[str], asked: Sequence[str], *, as_json: bool) -> int:
    missing = [run_id for run_id in asked if run_id not in done]
    if as_json:
        showing.emit({word: list(done), "not_found": missing})
    else:
        showing.say(f"{len(done)} {word}.")
        for run_id in missing:
            showing.remark(f"conferral: {run_id[:60]} is no dead letter (any more)")
    return NOT_FOUND if missing else 0


def _say_what() -> int:
    showing.remark("conferral: say which: ids, --code, --task or --all; --preview counts first")
    return USAGE


def _cause(cause: Cause) -> str:
    known = PROBLEMS.get(cause.code)
    title = f"  {known.title}" if known else ""
    return f"{cause.count:>6} x {tasks.name_of(cause.task)}, {cause.code}{title}"


def _record(row: Any) -> dict[str, Any]:
    return {
        "task_id": row.id,
        "task": row.task,
        "state": FAILURE,
        "subject": row.subject,
        "error": tasks.error_of(row.error_code or "internal", row.error_detail),
        "attempts_made": row.attempt - row.snoozes,
        "failed_at": row.finished_at,
    }
