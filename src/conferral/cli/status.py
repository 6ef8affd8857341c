# SPDX-License-Identifier: Apache-2.0
"""`conferral status`: what runs here, who leads, what waits; or one task.

Everything is read from rows and from what the supervisor wrote; no broker is asked, so the answer comes
when Redis is down, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from conferral import wiring
from conferral.cli import installation, processes, showing, tasks
from conferral.cli.process_identity import Identity
from conferral.cli.supervisor import STATUS_FILE
from conferral.domain.problems import Problem
from conferral.reliable import status as run_status
from conferral.services import operations
from conferral.services.operations import Leadership, Queue
from conferral.services.runtime import Runtime
from conferral.settings import Settings
from conferral.store.queries import deliveries, schedule_ticks
from conferral.store.records import Record

_PLACES = 4


@dataclass(frozen=True)
class _Seen:
    """What there is to show."""

    supervisor: Mapping[str, Any] | None
    leaders: list[Leadership]
    queues: list[Queue]
    workers: list[Record]
    schedules: Mapping[str, Mapping[str, object]]
    ticks: Mapping[str, Record]
    now: datetime


@click.command()
@click.argument("task_id", metavar="[TASK]", required=False)
@installation.with_json
def status(task_id: str | None, as_json: bool) -> None:
    """Show processes, leaders, queues, workers and schedules; or one task by its id."""
    settings = processes.prepared("cli")
    with installation.opened(settings) as rt:
        if task_id is not None:
            _show_task(rt, task_id, as_json=as_json)
            return
        seen = _look(rt, settings)
    if as_json:
        for record in _records(seen):
            showing.emit(record)
        return
    _show(seen)


def _show_task(rt: Runtime, task_id: str, *, as_json: bool) -> None:
    with rt.database.snapshot() as session:
        found = run_status.status_of(session, task_id)
        delivery = deliveries.of_run(session, task_id) if found is not None else None
    if found is None:
        raise Problem("not_found", f"there is no task {task_id[:60]!r}")
    is_duplicate = bool(delivery is not None and delivery.possible_duplicate)
    if as_json:
        showing.emit(tasks.record_of(found, possible_duplicate=is_duplicate))
        return
    showing.say(tasks.line_of(found, possible_duplicate=is_duplicate))
    for label, at in (
        ("queued", found.queued_at),
        ("started", found.started_at),
        ("ended", found.finished_at),
    ):
        showing.say(f"  {label:<8} {showing.moment(at)}")
    if found.subject:
        showing.say(f"  {'subject':<8} {found.subject}")
    if found.result is not None:
        showing.say(f"  {'result':<8} {json.dumps(found.result, ensure_ascii=False)}")


def _look(rt: Runtime, settings: Settings) -> _Seen:
    schedules = wiring.schedule_of(settings)
    with rt.database.snapshot() as session:
        return _Seen(
            supervisor=_supervisor(settings.run_dir / STATUS_FILE),
            leaders=operations.leaders(rt, session),
            queues=operations.queues(rt, session),
            workers=list(operations.workers(rt, session)),
            schedules=schedules,
            ticks=schedule_ticks.newest(session, list(schedules)),
            now=rt.database.now(),
        )


def _supervisor(path: Path) -> Mapping[str, Any] | None:
    """Return what a living supervisor of this data directory wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        is_alive = Identity(int(found["pid"]), str(found["started"])).is_alive()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if is_alive and isinstance(found.get("processes"), list) else None


def _show(seen: _Seen) -> None:
    if seen.supervisor is None:
        showing.say("No `conferral up` runs on this data directory.")
    else:
        showing.rows(("process", "state", "pid", "restarts"), map(_process, seen.supervisor["processes"]))
    showing.say()
    showing.rows(("leader", "epoch", "holder"), map(_leader, seen.leaders))
    showing.say()
    header = ("queue", "due", "oldest", "later", "in Redis", "working", "dead", "slots", "")
    showing.rows(header, (_queue(one, seen.now) for one in seen.queues))
    showing.say()
    showing.rows(
        ("worker", "pid", "queues", "slots", "seen"),
        (
            (row.node, row.pid, ", ".join(row.queues), row.slots, showing.ago(row.seen_at, seen.now))
            for row in seen.workers
        ),
    )
    showing.say()
    showing.rows(("schedule", "when", "last fired", "ended"), _schedules(seen))


def _process(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (row.get("name"), row.get("state"), row.get("pid"), row.get("restarts"))


def _leader(one: Leadership) -> tuple[object, ...]:
    if one.holder is None:
        return (one.name, one.epoch, "nobody yet")
    # "node boot/namespace/pid/start": people look for the node and the pid.
    node, _, process = one.holder.partition(" ")
    places = process.split("/")
    holder = f"{node}, pid {places[-2]}" if len(places) == _PLACES else one.holder
    return (one.name, one.epoch, holder if one.is_held else f"nobody; last {holder}")


def _queue(one: Queue, now: datetime) -> tuple[object, ...]:
    work = one.work
    oldest = f"{max(0, int((now - work.oldest_due_at).total_seconds()))} s" if work.oldest_due_at else None
    remark = "paused" if one.is_paused else "nobody works on it" if one.is_deserted else " "
    return (
        work.queue, work.due, oldest, work.scheduled, work.rung, work.working, work.dead, one.slots, remark,
    )  # fmt: skip


def _schedules(seen: _Seen) -> Iterator[tuple[object, ...]]:
    for name, entry in seen.schedules.items():
        tick = seen.ticks.get(name)
        yield (name, _when(entry), tick.created_at if tick else "never", tick.state if tick else None)


def _when(entry: Mapping[str, object]) -> str:
    shown = str(entry["schedule"]).strip("<>")
    return shown.removeprefix("crontab: ").removeprefix("freq: ").partition(" (")[0]


def _records(seen: _Seen) -> Iterator[dict[str, Any]]:
    for row in (seen.supervisor or {}).get("processes", ()):
        yield {"kind": "process", **row}
    for one in seen.leaders:
        yield {
            "kind": "leader", "name": one.name, "holder": one.holder, "epoch": one.epoch,
            "until": one.until, "is_held": one.is_held,
        }  # fmt: skip
    for queue in seen.queues:
        work = queue.work
        yield {
            "kind": "queue", "queue": work.queue, "due": work.due, "oldest_due_at": work.oldest_due_at,
            "scheduled": work.scheduled, "in_redis": work.rung, "working": work.working, "dead": work.dead,
            "slots": queue.slots, "is_paused": queue.is_paused,
        }  # fmt: skip
    for worker in seen.workers:
        yield {
            "kind": "worker", "node": worker.node, "pid": worker.pid, "pool": worker.pool,
            "queues": worker.queues, "slots": worker.slots, "seen_at": worker.seen_at,
        }  # fmt: skip
    for name, entry in seen.schedules.items():
        tick = seen.ticks.get(name)
        yield {
            "kind": "schedule", "name": name, "task": entry["task"], "schedule": _when(entry),
            "last_fired_at": tick.created_at if tick else None, "last_state": tick.state if tick else None,
        }  # fmt: skip
