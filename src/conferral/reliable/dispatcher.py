# SPDX-License-Identifier: Apache-2.0
"""Ring what is due: the one thread that turns rows into Celery messages.

It lives in workers that do not fork. One leads, the others stand by. Each pass (a) rescues
runs of dead workers, (b) tops every queue up to a bound with the most urgent runs, (c) rings
again what was rung long ago and never claimed. So Redis stays small, a flushed Redis heals in
seconds, and one click never waits behind somebody's batch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from celery import Celery
from amqp.exceptions import ChannelError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from conferral.reliable import leadership, metrics, runs
from conferral.reliable.bell import Bell, Bundle
from conferral.reliable.context import Context
from conferral.reliable.crash_points import crash_point
from conferral.reliable.outbox import terms_of
from conferral.reliable.rescue import OnDead, rescue_expired
from conferral.reliable.routing import BOUND_PER_SLOT, MIN_QUEUE_BOUND
from conferral.reliable.tables import RUNG, UNRUNG, pauses, workers
from conferral.reliable.tables import runs as runs_table
from conferral.reliable.task import MAX_BUNDLE, Task
from conferral.reliable.urgency import Candidate, Queue

log = logging.getLogger(__name__)

LEADERSHIP = "dispatcher"
BUSY_PAUSE_SECONDS = 0.05  # after a pass that left due runs behind
RING_AGAIN_SECONDS = 30.0  # a message not claimed by then was lost, or the queue is slow
WORKER_SEEN_SECONDS = 30.0  # three heartbeats
WORKER_FORGOTTEN = timedelta(days=1)
PRUNE_EVERY_SECONDS = 3600.0


class Dispatcher:
    """One dispatcher of one process; `start` it after fork, `stop` it with the worker."""

    def __init__(self, app: Celery, context: Context, tasks: Mapping[str, Task], holder: str) -> None:
        self._app = app
        self._context = context
        self._tasks = tasks
        self._holder = holder
        self._bell = Bell(app)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._lead_again_at = 0.0
        self._epoch: int | None = None
        self._prune_at = 0.0
        self._last_tenant: dict[str, str] = {}
        self._allowance: dict[str, tuple[float, float]] = {}  # queue -> (runs allowed, as of)

    def start(self) -> None:
        """Begin to lead, or to stand by."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current pass and make room for a successor."""
        self._stopped.set()
        self._thread.join(timeout=leadership.LEASE_SECONDS)
        if self._epoch is not None:
            try:
                with self._context.transaction() as session:
                    leadership.resign(session, LEADERSHIP, self._holder)
            except SQLAlchemyError:
                log.warning("dispatcher_resigned_silently")  # the lease ends by itself

    def _run(self) -> None:
        while not self._stopped.is_set():
            behind = False
            try:
                behind = self._leads() and self.sweep()
            except SQLAlchemyError as error:
                self._epoch = None
                log.warning("dispatcher_pass_failed", extra={"code": type(error).__name__})
            except Exception:
                # A dead dispatcher stops the product; a loud one that goes on does not.
                log.exception("dispatcher_pass_raised", extra={"code": "internal"})
            self._stopped.wait(BUSY_PAUSE_SECONDS if behind else self._context.sweep_seconds)

    def _leads(self) -> bool:
        if time.monotonic() < self._lead_again_at:
            return self._epoch is not None
        with self._context.transaction() as session:
            epoch = leadership.lead(session, LEADERSHIP, self._holder)
        if epoch is not None and epoch != self._epoch:
            log.info("dispatcher_leads", extra={"epoch": epoch})
        self._epoch = epoch
        self._lead_again_at = time.monotonic() + leadership.RENEW_SECONDS
        return epoch is not None

    def sweep(self) -> bool:
        """Make one pass; return whether due runs were left behind."""
        self._rescue()
        self._prune_workers()
        with self._context.snapshot() as session:
            slots = _slots(session, self._context.now())
            paused = set(session.execute(select(pauses.c.scope, pauses.c.name)).tuples())
        halted = {name for scope, name in paused if scope == "queue"}
        held_groups = sorted(name for scope, name in paused if scope == "group")
        behind = False
        for queue in self._context.routing.queues:
            if queue in halted:
                continue
            bound = max(MIN_QUEUE_BOUND, BOUND_PER_SLOT * slots.get(queue, 0))
            behind |= self._top_up(queue, bound, held_groups)
            self._ring_again(queue, bound)
        return behind

    def _rescue(self) -> None:
        with self._context.snapshot() as session:
            expired = session.execute(
                select(runs_table.c.id)
                .where(runs_table.c.state == "STARTED", runs_table.c.lease_until < self._context.now())
                .limit(1)
            ).first()
        if expired is None:
            return
        with self._context.transaction() as session:
            rescued = rescue_expired(session, self._burial)
        metrics.rescued(len(rescued))
        for one in rescued:
            log.warning("run_rescued", extra={"run_id": one.run_id, "task": one.task, "state": one.state})

    def _burial(self, name: str) -> OnDead | None:
        declared = self._tasks.get(name)
        return declared.on_dead if declared else None

    def _top_up(self, queue: str, bound: int, held_groups: Sequence[str]) -> bool:
        now = self._context.now()
        with self._context.snapshot() as session:
            room = min(bound - _outstanding(session, queue), self._allowed(queue, bound))
            if room <= 0:
                return False
            waiting = Queue(session, queue, now, held_groups, self._last_tenant.get(queue, ""))
            chosen = waiting.most_urgent(room)
            self._last_tenant[queue] = waiting.last_tenant
        if chosen:
            self._ring(queue, chosen)
        return len(chosen) >= room

    def _ring(self, queue: str, chosen: Sequence[Candidate]) -> None:
        # Marked first: a crash before the message costs one RING_AGAIN_SECONDS, and a run is
        # never marked as rung after it was already claimed and retried.
        with self._context.transaction() as session:
            now = terms_of(session).now()
            marked = set(
                session.execute(
                    update(runs_table)
                    .where(runs_table.c.id.in_([one.run_id for one in chosen]), UNRUNG)
                    .values(rung_at=now)
                    .returning(runs_table.c.id)
                ).scalars()
            )
        bundles = list(self.bundles(queue, [one for one in chosen if one.run_id in marked]))
        unrung = self._bell.ring_bundles(bundles)
        crash_point("dispatch.published")
        metrics.rung(queue, len(marked) - len(unrung))
        self._spend(queue, len(marked))
        if unrung:
            with self._context.transaction() as session:
                runs.unring(session, unrung)

    def bundles(self, queue: str, chosen: Iterable[Candidate]) -> Iterable[Bundle]:
        """Put bulk runs of one task and destination, never claimed before, into one message."""

        def kind(one: Candidate) -> tuple[str, str, int]:
            declared = self._tasks.get(one.task)
            size = min(declared.bundle, MAX_BUNDLE) if declared and one.may_be_bundled else 1
            return one.task, one.bundle_key or "", size

        for (name, _, size), alike in groupby(sorted(chosen, key=kind), key=kind):
            run_ids = [one.run_id for one in alike]
            for start in range(0, len(run_ids), size):
                yield Bundle(name, queue, tuple(run_ids[start : start + size]))

    def _ring_again(self, queue: str, bound: int) -> None:
        stale = self._context.now() - timedelta(seconds=RING_AGAIN_SECONDS)
        with self._context.snapshot() as session:
            unclaimed = session.execute(
                select(runs_table.c.id)
                .where(runs_table.c.queue == queue, RUNG, runs_table.c.rung_at < stale)
                .limit(bound)
            ).scalars().all()  # fmt: skip
        if not unclaimed or self._length(queue) >= bound:
            return  # nothing lost, or merely slow: more bells would not make it faster
        log.info("rung_again", extra={"queue": queue, "runs": len(unclaimed)})
        with self._context.transaction() as session:
            runs.unring(session, unclaimed)

    def _length(self, queue: str) -> int:
        """Return how many messages the broker holds for a queue; none if it cannot be asked."""
        try:
            with self._app.connection_or_acquire() as connection:
                found = connection.default_channel.queue_declare(queue=queue, passive=True)
                return int(found.message_count)
        except (OperationalError, ChannelError, RedisError, OSError):
            return 0

    def _allowed(self, queue: str, bound: int) -> int:
        """Return how many runs the queue's rate still allows; at most one second's worth saves up."""
        rate = self._context.routing.rate_of(queue)
        if rate is None:
            return bound
        now = time.monotonic()
        allowed, as_of = self._allowance.get(queue, (rate, now))
        allowed = min(max(rate, 1.0), allowed + rate * (now - as_of))
        self._allowance[queue] = (allowed, now)
        return int(allowed)

    def _spend(self, queue: str, count: int) -> None:
        if queue in self._allowance:
            allowed, as_of = self._allowance[queue]
            self._allowance[queue] = (allowed - count, as_of)

    def _prune_workers(self) -> None:
        if time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + PRUNE_EVERY_SECONDS
        with self._context.transaction() as session:
            forgotten = terms_of(session).now() - WORKER_FORGOTTEN
            session.execute(delete(workers).where(workers.c.seen_at < forgotten))


def _slots(session: Session, now: datetime) -> dict[str, int]:
    """Return the slots of live consumers by queue."""
    seen = session.execute(
        select(workers.c.queues, workers.c.slots).where(
            workers.c.seen_at > now - timedelta(seconds=WORKER_SEEN_SECONDS)
        )
    )
    slots: dict[str, int] = {}
    for queues, count in seen:
        for queue in queues:
            slots[queue] = slots.get(queue, 0) + count
    return slots


def _outstanding(session: Session, queue: str) -> int:
    """Return how many runs of the queue are rung and not yet claimed."""
    counted: int = session.execute(
        select(func.count()).select_from(runs_table).where(runs_table.c.queue == queue, RUNG)
    ).scalar_one()
    return counted
