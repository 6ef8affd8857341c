# SPDX-License-Identifier: Apache-2.0
"""State as metrics, read from the rows when somebody scrapes: right after any restart.

Finished rows are never counted. Labels never hold an id, an organisation or a host.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from conferral import __version__, wiring
from conferral.services import operations
from conferral.store.queries import gauges
from conferral.web import limits
from conferral.web.site import Site

KEPT_SECONDS: Final = 5.0  # however many scrape: the database is asked that often


@dataclass
class _Family:
    """One metric under construction."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    samples: list[tuple[tuple[str, ...], float]] = field(default_factory=list)

    def add(self, value: float, *labels: str) -> None:
        self.samples.append((labels, value))

    def built(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"conferral_{self.name}", self.help, labels=self.labels)
        for labels, value in self.samples:
            family.add_metric(list(labels), value)
        return family


class StateCollector(Collector):
    """Gauges of one deployment; register it where metrics are served."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._known: list[GaugeMetricFamily] = []
        self._until = 0.0

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every gauge, at most five seconds old; without a database only what needs none."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._known = [family.built() for family in self._read()]
                self._until = time.monotonic() + KEPT_SECONDS
            yield from self._known

    def _read(self) -> list[_Family]:
        build = _Family("build_info", "The version that runs.", ("version",))
        build.add(1, __version__)
        up = _Family("database_up", "Whether the database answers.")
        families = [build, up, *_surroundings(self._site)]
        try:
            families += [*_work(self._site), *_effects(self._site)]
            up.add(1)
        except SQLAlchemyError:
            up.add(0)
        return families


def _surroundings(site: Site) -> list[_Family]:
    redis_up = _Family("redis_up", "Whether the broker answers; it may be away.")
    memory = _Family("redis_memory_ratio", "Used of the broker's memory limit; absent without a limit.")
    url = site.settings.broker_url
    if url.startswith(("redis", "unix")):
        try:
            client = limits.client(url)
            about = client.info("memory")
            client.close()
        except (RedisError, OSError):
            redis_up.add(0)
        else:
            redis_up.add(1)
            limit = float(about.get("maxmemory", 0))
            if limit:
                memory.add(float(about["used_memory"]) / limit)
    storage = _Family("storage_free_ratio", "Free of the data directory's file system.")
    usage = shutil.disk_usage(site.settings.data_dir)
    storage.add(usage.free / usage.total)
    return [redis_up, memory, storage]


def _work(site: Site) -> list[_Family]:
    rt = site.runtime
    now = rt.database.now()
    runs = _Family("runs", "Runs that are not final, and dead letters.", ("task", "state"))
    retries = _Family("retry_scheduled", "Runs that wait for their next try.", ("task",))
    dead = _Family("dead_letters", "Runs that ended as failures and wait for a person.", ("task", "code"))
    due = _Family("queue_due", "Runs that are due.", ("queue", "priority"))
    oldest = _Family("queue_oldest_due_seconds", "How long the oldest due run waits.", ("queue", "priority"))
    in_redis = _Family("queue_in_redis", "Runs that were rung and not yet claimed.", ("queue",))
    slots = _Family("worker_slots", "Slots of living workers.", ("pool", "state"))
    seen = _Family("worker_last_seen_timestamp_seconds", "The last sign of life of a pool.", ("pool",))
    with rt.database.snapshot() as session:
        for task, state, count in gauges.live_runs(session):
            runs.add(count, task, state)
            if state == "RETRY":
                retries.add(count, task)
        for task, code, count in gauges.dead_letters(session):
            dead.add(count, task, code)
        for queue, priority, count, since in gauges.due(session, now):
            due.add(count, queue, _priority(priority))
            oldest.add(max(0.0, (now - since).total_seconds()), queue, _priority(priority))
        for found in operations.queues(rt, session):
            in_redis.add(found.work.rung, found.work.queue)
        living = operations.workers(rt, session)
        working = gauges.working(session)
        leaders = operations.leaders(rt, session)
    for pool in wiring.routing_of(site.settings).pools:
        mine = [row for row in living if row.pool == pool.name]
        total = sum(row.slots for row in mine)
        busy = min(total, working.get(pool.queue, 0))
        slots.add(busy, pool.name, "busy")
        slots.add(total - busy, pool.name, "free")
        if mine:
            seen.add(max(row.seen_at for row in mine).timestamp(), pool.name)
    return [runs, retries, dead, due, oldest, in_redis, slots, seen, *_leaders(leaders)]


def _leaders(found: list[operations.Leadership]) -> list[_Family]:
    families = []
    ticks = _Family("beat_last_tick_timestamp_seconds", "When a schedule fired last.", ("schedule",))
    for one in found:
        family = _Family(f"{one.name}_leader", f"Whether somebody leads the {one.name}.")
        family.add(1 if one.is_held else 0)
        families.append(family)
        for entry, text in one.last_ticks.items():
            ticks.add(datetime.fromisoformat(text).timestamp(), entry)
    return [*families, ticks]


def _effects(site: Site) -> list[_Family]:
    rt = site.runtime
    now = rt.database.now()
    unfinished = _Family("credentials", "Credentials that are not final.", ("state",))
    held = _Family("held", "Deliveries that wait for a person's word.", ("task",))
    endpoints = _Family("webhook_endpoints", "Webhook endpoints.", ("state",))
    leaves = _Family("log_unsequenced_leaves", "Leaves without a place in the log.", ("log",))
    oldest = _Family("log_oldest_leaf_seconds", "How long the oldest of them waits.", ("log",))
    size = _Family("log_size", "Leaves of the log.", ("log",))
    with rt.database.snapshot() as session:
        for state, count in gauges.unfinished_credentials(session):
            unfinished.add(count, state)
        for task, code, count in gauges.dead_letters(session):
            if code == "email_outcome_unknown":
                held.add(count, task)
        for state, count in gauges.endpoints(session):
            endpoints.add(count, state)
        for log, waiting, since, length in gauges.logs(session):
            leaves.add(waiting, log)
            oldest.add((now - since).total_seconds() if since is not None else 0.0, log)
            size.add(length, log)
    return [unfinished, held, endpoints, leaves, oldest, size]


def _priority(value: int) -> str:
    return "interactive" if value == 0 else "bulk"
