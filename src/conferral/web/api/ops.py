# SPDX-License-Identifier: Apache-2.0
"""Operations: queues, workers, schedules, and dead letters with a preview before anything is done."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from sqlalchemy.orm import Session

from conferral import wiring
from conferral.domain.problems import PROBLEMS
from conferral.reliable.dead_letters import Filter
from conferral.services import operations
from conferral.services.idempotency import Answer
from conferral.services.operations import Leadership, Queue
from conferral.web import idempotent
from conferral.web.api import blueprint, outputs, wire
from conferral.web.api.models import DeadLetterFilter, DiscardBody, ReplayBody
from conferral.web.gate import needs
from conferral.web.site import caller, runtime, site

api = blueprint("ops")

OK = 200


@api.get("/v1/ops/queues", responses={200: outputs.QueuesOut})
@needs("ops:read")
def list_queues() -> Response:
    """Return what each queue has to do, and who leads the dispatcher."""
    with runtime().database.snapshot() as session:
        found = operations.queues(runtime(), session)
        leaders = operations.leaders(runtime(), session)
    return jsonify(data=[_queue(one) for one in found], leaders=[_leader(one) for one in leaders])


@api.get("/v1/ops/workers", responses={200: outputs.WorkersOut})
@needs("ops:read")
def list_workers() -> Response:
    """Return the worker processes that are alive."""
    with runtime().database.snapshot() as session:
        rows = operations.workers(runtime(), session)
    return jsonify(
        data=[
            {
                "node": row.node.partition(" ")[0],
                "pool": row.pool,
                "queues": row.queues,
                "slots": row.slots,
                "host": row.host,
                "pid": row.pid,
                "started_at": wire.moment(row.started_at),
                "seen_at": wire.moment(row.seen_at),
            }
            for row in rows
        ]
    )


@api.get("/v1/ops/schedules", responses={200: outputs.SchedulesOut})
@needs("ops:read")
def list_schedules() -> Response:
    """Return the schedules and when each fired last."""
    with runtime().database.snapshot() as session:
        (beat,) = (one for one in operations.leaders(runtime(), session) if one.name == operations.BEAT)
    schedules = wiring.schedule_of(site().settings)
    data = [
        {
            "name": name,
            "task": entry["task"],
            "schedule": str(entry["schedule"]),
            "last_fired_at": beat.last_ticks.get(name),
        }
        for name, entry in schedules.items()
    ]
    return jsonify(data=data, leader=_leader(beat))


@api.get("/v1/ops/dead-letters", responses={200: outputs.DeadLettersOut})
@needs("ops:read")
def list_dead_letters() -> Response:
    """Return the first hundred dead letters, oldest first, and their causes."""
    with runtime().database.snapshot() as session:
        rows = operations.dead(session, caller(), Filter())
    return jsonify(data=[_dead(row) for row in rows], causes=_causes(rows))


@api.post("/v1/ops/dead-letters/replay", responses={200: outputs.ReplayOut})
@needs("ops:write")
def replay(body: ReplayBody) -> Response:
    """Make dead letters due again, a hundred at most; `preview` counts and changes nothing."""
    wanted = _filter(body.filter)
    if body.preview:
        return _preview(wanted)

    def work(session: Session) -> Answer:
        done = operations.replay(runtime(), session, caller(), wanted)
        return idempotent.json_answer(OK, {"replayed": len(done), "task_ids": done})

    return idempotent.once(work)


@api.post("/v1/ops/dead-letters/discard", responses={200: outputs.DiscardOut})
@needs("ops:write")
def discard(body: DiscardBody) -> Response:
    """Give dead letters up for good, a hundred at most; `preview` counts and changes nothing."""
    wanted = _filter(body.filter)
    if body.preview:
        return _preview(wanted)

    def work(session: Session) -> Answer:
        done = operations.discard(runtime(), session, caller(), wanted)
        return idempotent.json_answer(OK, {"discarded": len(done), "task_ids": done})

    return idempotent.once(work)


def _preview(wanted: Filter) -> Response:
    with runtime().database.snapshot() as session:
        rows = operations.dead(session, caller(), wanted)
    return jsonify(count=len(rows), causes=_causes(rows))


def _filter(given: DeadLetterFilter) -> Filter:
    ids = tuple(given.task_ids) if given.task_ids is not None else None
    return Filter(task=given.task, code=given.code, run_ids=ids)


def _queue(found: Queue) -> dict[str, Any]:
    work = found.work
    return {
        "queue": work.queue,
        "due": work.due,
        "oldest_due_at": wire.moment(found.oldest_due_at),
        "scheduled": work.scheduled,
        "in_redis": work.rung,
        "working": work.working,
        "dead": work.dead,
        "slots": found.slots,
        "paused": found.is_paused,
    }


def _leader(found: Leadership) -> dict[str, Any]:
    return {
        "name": found.name,
        "holder": found.holder,
        "epoch": found.epoch,
        "until": wire.moment(found.until),
        "held": found.is_held,
    }


def _causes(rows: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "code": code,
            "title": PROBLEMS[code].title if code in PROBLEMS else code,
            "count": count,
        }
        for task, code, count in operations.by_cause(rows)
    ]


def _dead(row: Any) -> dict[str, Any]:
    return {
        "task_id": row.id,
        "task": row.task,
        "subject": row.subject,
        "error": wire.error(row.error_code or "internal", row.error_detail),
        "attempts": row.attempt - row.snoozes,
        "failed_at": wire.moment(row.finished_at),
    }
