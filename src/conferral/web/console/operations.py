# SPDX-License-Identifier: Apache-2.0
"""Operations: is anything stuck, who leads, and what ended as a failure; nothing is done unseen.

A replay or a discard first shows what it would touch; doing it is a second form, and audited.
"""

from __future__ import annotations

from datetime import datetime

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from conferral import wiring
from conferral.domain.problems import Problem
from conferral.reliable.dead_letters import Filter
from conferral.services import operations as ops
from conferral.store.queries import listing
from conferral.web.console.door import pages, visitor
from conferral.web.site import runtime, site

ACTIONS = ("replay", "discard")


@pages.get("/operations")
def operations() -> str:
    """Show queues, leaders, schedules, workers and dead letters."""
    rt = runtime()
    with rt.database.snapshot() as session:
        queues = ops.queues(rt, session)
        leaders = ops.leaders(rt, session)
        workers = ops.workers(rt, session)
        dead = ops.dead_of_organisation(session, visitor().organisation.id, Filter())
    beat = next(one for one in leaders if one.name == ops.BEAT)
    return render_template(
        "console/operations.html",
        now=rt.database.now(),
        queues=queues,
        leaders=leaders,
        workers=workers,
        ticks_shown=[
            (name, entry["task"], _time(beat.last_ticks.get(name)))
            for name, entry in wiring.schedule_of(site().settings).items()
        ],
        dead=dead,
        causes=ops.by_cause(dead),
        done=request.args.get("done"),
        count=request.args.get("count", type=int),
    )


@pages.get("/operations/dead-letters")
def preview_dead_letters() -> str:
    """Show what a replay or a discard would touch, before it is done."""
    wanted = _filter(request.args.get("task", ""), request.args.get("code", ""))
    with runtime().database.snapshot() as session:
        rows = ops.dead_of_organisation(session, visitor().organisation.id, wanted)
        names = listing.recipient_names(session, [row.subject for row in rows if row.subject])
    return render_template(
        "console/dead_letters.html", rows=rows, causes=ops.by_cause(rows), names=names, page=ops.PAGE
    )


@pages.post("/operations/dead-letters")
def act_on_dead_letters() -> Response:
    """Replay or discard what was shown; only that, whatever failed meanwhile."""
    if not visitor().may_change:
        raise Problem("scope_missing", "your role may look and not change; ask an owner")
    action = request.form.get("action", "")
    if action not in ACTIONS:
        raise Problem("request_invalid", "choose to replay or to discard")
    shown = tuple(request.form.getlist("task_id")[: ops.PAGE])
    rt = runtime()
    act = ops.replay_shown if action == "replay" else ops.discard_shown
    with rt.database.transaction() as session:
        done = act(rt, session, visitor().caller("test"), shown)
    return redirect(url_for("console.operations", done=action, count=len(done)))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _filter(task: str, code: str) -> Filter:
    return Filter(
        task=task.replace("\0", "")[:120] or None,
        code=code.replace("\0", "")[:60] or None,
    )
