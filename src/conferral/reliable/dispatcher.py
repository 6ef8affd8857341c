# SPDX-License-Identifier: Apache-2.0
"""Ring what is due: the one thread that turns rows into Celery messages.

It lives in workers that do not fork. One leads, the others stand by. Each pass (a) rescues
runs of dead workers, (b) tops every queue up to a bound with the most urgent runs, (c) rings
again what was rung long ago and never claimed. So Redis stays small, a flushed Redis heals in
seconds, and one click never waits behind somebody's batch.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from amqp.exceptions import ChannelError
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from conferral.reliable import leadership, metrics, pauses, runs
from conferral.reliable.bell import Bell, Bundle
from conferral.reliable.context import Context
from conferral.reliable.crash_points import crash_point
from conferral.reliable.outbox import terms_of
from conferral.reliable.promises import BULK
from conferral.reliable.rescue import Rescued, orphans, rescue_expired, rescue_gone
from conferral.reliable.routing import BOUND_PER_SLOT, MIN_QUEUE_BOUND
from conferral.reliable.tables import LEASED, RUNG, UNRUNG, workers
from conferral.reliable.tables import runs as runs_table
from conferral.reliable.task import MAX_BUNDLE, Task, burials
from conferral.reliable.urgency import BULK_SHARE, Candidate, Queue, Turn

log = logging.getLogger(__name__)

LEADERSHIP = "dispatcher"
QUIET_SECONDS = 1.0  # it has nobody who waits for it, so it finds out soon whether Redis is back
BUSY_PAUSE_SECONDS = 0.05  # after a pass that left due runs behind
WORKER_SEEN_SECONDS = 30.0  # three heartbeats
WORKER_FORGOTTEN = timedelta(days=1)
PRUNE_EVERY_SECONDS = 3600.0
GROUPS_A_PASS = 10  # moved by one pass, so that ringing never waits for them for long
LATECOMERS_EVERY_SECONDS = 5.0  # runs promised into a paused group are stepped over until then


class Dispatcher:
    """One dispatcher of one process; `start` it after fork, `stop` it with the worker."""

    def __init__(self, app: Celery, context: Context, tasks: Mapping[str, Task], holder: str) -> None:
        self._app = app
        self._context = context
        self._tasks = tasks
        self._burials = burials(tasks)
        self._holder = holder
        self._bell = Bell(app, quiet_seconds=QUIET_SECONDS, slow_seconds=math.inf)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._lead_again_at = 0.0
        self._epoch: int | None = None
        self._prune_at = 0.0
        self._turns: dict[str, Turn] = {}  # whose turn it is, by queue
        self._allowance: dict[str, tuple[float, float]] = {}  # queue -> (runs allowed, as of)
        self._settled_groups: dict[str, float] = {}  # paused group -> when to look for latecomers

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
        behind = self._move_groups()
        with self._context.snapshot() as session:
            slots = _slots(session, self._context.now())
            paused = pauses.paused(session)
        if self._bell.is_quiet:
            return False  # nothing can be rung; marking and unmarking would be all we do
        for queue in self._context.routing.queues:
            if queue in paused.queues:
                continue
            bound = max(MIN_QUEUE_BOUND, BOUND_PER_SLOT * slots.get(queue, 0))
            behind |= self._top_up(queue, bound, sorted(paused.groups))
            self._ring_again(queue, bound)
        return behind

    def _move_groups(self) -> bool:
        """Hold or release a part of each group that was paused or resumed; return whether some are left."""
        with self._context.snapshot() as session:
            groups = pauses.groups(session)
        now = time.monotonic()
        known = {group: at for group, at in self._settled_groups.items() if groups.get(group)}
        unsettled = [group for group in groups if known.get(group, 0.0) <= now]
        left_behind = len(unsettled) > GROUPS_A_PASS
        for group in unsettled[:GROUPS_A_PASS]:
            with self._context.transaction() as session:
                is_left = pauses.move_group(session, group)
            known[group] = now if is_left else now + LATECOMERS_EVERY_SECONDS
            left_behind |= is_left
        self._settled_groups = known
        return left_behind

    def _rescue(self) -> None:
        """Bring back what dead or frozen workers held; one read when there is nothing."""
        with self._context.snapshot() as session:
            gone = orphans(session)
            expired = session.execute(
                select(runs_table.c.id).where(LEASED, runs_table.c.lease_until < self._context.now()).limit(1)
            ).first()
        rescued: list[Rescued] = []
        if gone or expired is not None:
            with self._context.transaction() as session:
                rescued = rescue_gone(session, gone, self._burials)
                rescued += rescue_expired(session, self._burials)
        metrics.rescued(len(rescued))
        for one in rescued:
            log.warning("run_rescued", extra={"run_id": one.run_id, "task": one.task, "state": one.state})

    def _top_up(self, queue: str, bound: int, held_groups: Sequence[str]) -> bool:
        now = self._context.now()
        with self._context.snapshot() as session:
            all_rung, bulk_rung = _outstanding(session, queue)
            allowed = self._allowed(queue, bound)
            room = min(bound - all_rung, allowed)
            # Clicks are rung by whoever promises them, past the bound. A batch keeps its share
            # of the bound beside them, or a stream of clicks would starve it.
            bulk_room = min(bound // BULK_SHARE - bulk_rung, allowed)
            waiting = Queue(session, queue, now, held_groups, self._turns.setdefault(queue, Turn()))
            if room > 0:
                chosen = waiting.most_urgent(room)
            elif bulk_room > 0:
                room, chosen = bulk_room, waiting.most_urgent_bulk(bulk_room)
            else:
                return False
        rung = self._ring(queue, chosen) if chosen else True
        return rung and len(chosen) >= room

    def _ring(self, queue: str, chosen: Sequence[Candidate]) -> bool:
        """Mark and ring; return whether the bells were rung."""
        # Marked first: a crash before the message costs one `ring_again_seconds`, and a run is
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
        bundles = bundles_of(self._tasks, queue, [one for one in chosen if one.run_id in marked])
        unrung = self._bell.ring_bundles(bundles)
        crash_point("dispatch.published")
        metrics.rung(queue, len(marked) - len(unrung))
        self._spend(queue, len(marked) - len(unrung))
        if unrung:
            with self._context.transaction() as session:
                runs.unring(session, unrung)
        return not unrung

    def _ring_again(self, queue: str, bound: int) -> None:
        stale = self._context.now() - timedelta(seconds=self._context.ring_again_seconds)
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


def bundles_of(tasks: Mapping[str, Task], queue: str, chosen: Iterable[Candidate]) -> list[Bundle]:
    """Put bulk runs of one task and destination, never claimed before, into one message.

    Messages keep the order of urgency of their first runs.
    """
    messages: list[tuple[str, list[str]]] = []
    open_bundles: dict[tuple[str, str | None], list[str]] = {}
    for one in chosen:
        declared = tasks.get(one.task)
        size = min(declared.bundle, MAX_BUNDLE) if declared and one.may_be_bundled else 1
        kind = (one.task, one.bundle_key)
        bundle = open_bundles.get(kind) if size > 1 else None
        if bundle is None or len(bundle) >= size:
            bundle = []
            messages.append((one.task, bundle))
            if size > 1:
                open_bundles[kind] = bundle
        bundle.append(one.run_id)
    return [Bundle(name, queue, tuple(run_ids)) for name, run_ids in messages]


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


def _outstanding(session: Session, queue: str) -> tuple[int, int]:
    """Return how many runs of the queue are rung and not yet claimed: all, and bulk ones."""
    by_priority = session.execute(
        select(runs_table.c.priority, func.count())
        .where(runs_table.c.queue == queue, RUNG)
        .group_by(runs_table.c.priority)
    ).all()
    everything = sum(count for _, count in by_priority)
    return everything, sum(count for priority, count in by_priority if priority >= BULK)
