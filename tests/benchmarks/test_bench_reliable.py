# SPDX-License-Identifier: Apache-2.0
"""Runs a second of the reliable layer against plain Celery, with and without results, in one run.

Not the same promise: plain Celery keeps nothing, loses the queue with Redis and repeats what a
killed worker had begun; a run is a row with a state, a fence, a history and a dead letter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import chain, signature
from sqlalchemy import func, select

from conferral.reliable.promises import BULK, Promise, promise_all
from conferral.reliable.tables import runs
from support.bench_processes import measured
from support.bench_report import Report
from support.bench_workers import plain_celery
from support.postgres import postgres_server
from support.redis import redis_process
from support.reliable_stand import stand

SECTION = "The reliable layer against plain Celery (no-op tasks, 2 slots)"
SLOTS = 2
KINDS = {"prefork": "fork", "threads": "wait"}
PATIENCE_SECONDS = 300.0
CHUNK = 500


@dataclass(frozen=True)
class Rate:
    """Tasks a second and worker CPU a task."""

    a_second: float
    cpu_ms: float

    def __str__(self) -> str:
        return f"{self.a_second:.0f}/s, {self.cpu_ms:.2f} ms CPU"


@pytest.mark.parametrize("kind", KINDS)
def test_runs_a_second(kind: str, tmp_path: Path, report: Report, *, full: bool) -> None:
    """The same number of empty tasks through each, sent first and then worked off."""
    count = 5_000 if full else 400
    with redis_process() as server:
        plain = celery_rate(server.url, tmp_path / "plain", kind, count, results=False)
        kept = celery_rate(server.url, tmp_path / "kept", kind, count, results=True)
    report.add(SECTION, f"plain Celery, no results, {kind}", str(plain))
    report.add(SECTION, f"plain Celery, results in Redis, {kind}", str(kept))
    with postgres_server() as postgres:
        for database, url in (("sqlite", None), ("postgresql", postgres)):
            ours = our_rate(url, kind, count)
            ratio = " · ".join(
                f"{ours.a_second / other.a_second:.2f}x {name}"
                for name, other in (("plain", plain), ("with results", kept))
            )
            report.add(SECTION, f"durable runs, {database}, {kind}", str(ours), ratio=ratio)


def test_flows_of_three_steps(tmp_path: Path, report: Report, *, full: bool) -> None:
    """Three steps, each promised by the one before it, against a chain of three (which needs results)."""
    count = 1_000 if full else 100
    with redis_process() as server:
        plain = celery_rate(server.url, tmp_path / "chain", "threads", count, results=True, steps=3)
    report.add(SECTION, "flows of three steps, plain Celery chain", str(plain))
    for database in ("sqlite", "postgresql"):
        with postgres_server() as postgres:
            ours = our_rate(postgres if database == "postgresql" else None, "threads", count, task="flow")
        ratio = f"{ours.a_second / plain.a_second:.2f}x the chain"
        report.add(SECTION, f"flows of three steps, durable runs, {database}", str(ours), ratio=ratio)


def celery_rate(url: str, folder: Path, kind: str, count: int, *, results: bool, steps: int = 1) -> Rate:
    """Work off `count` tasks, or chains of several, with one worker of plain Celery."""
    with plain_celery(url, folder, kind=kind, slots=SLOTS, results=results) as celery:
        celery.app.send_task("bench.nothing", [])
        celery.until_done()
        with measured(celery.process.pid) as cost:
            for _ in range(count):
                one = [signature("bench.nothing", app=celery.app) for _ in range(steps)]
                (chain(*one) if steps > 1 else one[0]).apply_async()
            celery.until_done()
    return Rate(count / cost.wall_seconds, cost.cpu_seconds / count * 1000)


def our_rate(url: str | None, kind: str, count: int, *, task: str = "nothing") -> Rate:
    """Work off `count` promised runs with one worker; the dispatcher's is in the same process or beside."""
    pool = KINDS[kind]
    with stand(url) as house:
        worker = house.worker(pool)
        helper = house.worker("wait", "dispatcher") if pool == "fork" else worker
        house.promise(f"{pool}.nothing")
        house.until(lambda: house.states().get("SUCCESS") == 1, PATIENCE_SECONDS)
        done = select(func.count()).where(runs.c.state == "SUCCESS", runs.c.task == f"{pool}.nothing")
        began = time.monotonic()
        with measured(worker.pid) as mine, measured(helper.pid) as other:
            for start in range(0, count, CHUNK):
                one = Promise(task=f"{pool}.{task}", args=[], priority=BULK)
                wanted = [one] * min(CHUNK, count - start)
                with house.database.transaction() as session:
                    promise_all(session, wanted)

            def finished() -> bool:
                with house.database.snapshot() as session:
                    return int(session.execute(done).scalar_one()) >= count + 1

            while not finished():
                assert time.monotonic() - began < PATIENCE_SECONDS, house.logs
                time.sleep(0.1)
    cpu = mine.cpu_seconds + (other.cpu_seconds if helper is not worker else 0.0)
    return Rate(count / mine.wall_seconds, cpu / count * 1000)
