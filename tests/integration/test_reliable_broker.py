# SPDX-License-Identifier: Apache-2.0
"""Redis goes away, forgets, comes back, freezes: promises stand, callers do not wait, workers live."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from conferral.reliable.promises import BULK
from conferral.reliable.tables import PENDING, SUCCESS
from support.reliable_stand import Stand, stand

OUTAGE_SECONDS = 12.0


@pytest.fixture
def house() -> Iterator[Stand]:
    """Return a stand without workers."""
    with stand() as found:
        yield found


def _seconds(house: Stand) -> float:
    began = time.monotonic()
    run_id = house.promise("wait.mark", "x")
    taken = time.monotonic() - began
    assert house.row(run_id).state == PENDING
    return taken


def test_caller_does_not_wait_when_redis_is_stopped(house: Stand) -> None:
    """Within a second at first, then at once for a second, and the rows say that nothing was rung."""
    house.promise("wait.mark", "connected")
    house.redis.stop()
    assert _seconds(house) < 1.0
    assert max(_seconds(house) for _ in range(5)) < 0.2
    run_id = house.promise("wait.mark", "x")
    assert house.row(run_id).rung_at is None


def test_caller_does_not_wait_when_redis_is_frozen(house: Stand) -> None:
    """A Redis that accepts and never answers costs one exchange's time-out, then nothing."""
    house.promise("wait.mark", "connected")
    assert house.redis.process is not None
    os.kill(house.redis.process.pid, signal.SIGSTOP)
    try:
        assert _seconds(house) < 1.5
        assert max(_seconds(house) for _ in range(5)) < 0.2
    finally:
        os.kill(house.redis.process.pid, signal.SIGCONT)


def test_runs_are_rung_when_redis_returns_after_a_crash(house: Stand) -> None:
    """Promised while it was away, executed when it is back; the workers and their alive files, too."""
    worker = house.worker("wait")
    first = house.promise("wait.mark", "before")
    house.until_state(first, SUCCESS)
    during = house.promise("wait.slow", "during", "1")
    house.until(lambda: house.effects(during))
    house.redis.kill()
    away = [house.promise("wait.mark", f"away{n}") for n in range(3)]
    away.append(house.promise("wait.mark", "away-bulk", priority=BULK))
    house.until_state(during, SUCCESS)
    assert {house.row(run_id).state for run_id in away} == {PENDING}
    house.redis.start()
    for run_id in away:
        house.until_state(run_id, SUCCESS, seconds=30)
    assert len(house.effects()) == 7
    assert worker.process.poll() is None
    (alive,) = (house.folder / "alive").glob("wait@*.alive")
    touched = alive.stat().st_mtime
    house.until(lambda: alive.stat().st_mtime > touched, seconds=10)


@pytest.mark.parametrize("pool", ["wait", "fork"])
def test_worker_gives_signs_of_life_while_redis_is_away(house: Stand, pool: str) -> None:
    """Who waits for Redis is not deaf: a worker restarted for that would only wait from the beginning."""
    worker = house.worker(pool)
    house.redis.kill()
    house.until(lambda: "Connection refused" in worker.log, why=lambda: worker.log)
    (alive,) = (house.folder / "alive").glob(f"{pool}@*.alive")
    ends = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < ends:  # far longer than the timer's turn of 5 s, which stands still now
        touched = alive.stat().st_mtime
        house.until(lambda touched=touched: alive.stat().st_mtime > touched, seconds=6)  # type: ignore[misc]
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        frozen = alive.stat().st_mtime
        with pytest.raises(AssertionError):
            house.until(lambda: alive.stat().st_mtime > frozen, seconds=3)
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    house.redis.start()
    back = house.promise(f"{pool}.mark", "back")
    house.worker("wait")  # rings what the caller could not
    house.until_state(back, SUCCESS, seconds=40)
    assert worker.process.poll() is None


def test_forking_worker_survives_when_redis_goes_during_an_effect(house: Stand) -> None:
    """Celery 5.7.0 exits here with status 1: an upgrade has to pass this test."""
    worker = house.worker("fork")
    house.worker("wait")
    during = house.promise("fork.slow", "during", "2")
    house.until(lambda: house.effects(during))
    house.redis.kill()
    house.until_state(during, SUCCESS)
    house.redis.start()
    after = house.promise("fork.mark", "after")
    house.until_state(after, SUCCESS, seconds=30)
    assert worker.process.poll() is None
    assert house.outcomes(during) == ["success"]


def test_everything_moves_when_redis_has_forgotten_everything(house: Stand) -> None:
    """FLUSHALL while messages wait: nobody acts, and nothing runs twice."""
    house.worker("wait", ring_again_seconds=2.0)
    blockers = [house.promise("wait.slow", "block", "1.5") for _ in range(2)]
    for run_id in blockers:
        house.until(lambda run_id=run_id: house.effects(run_id))  # type: ignore[misc]
    waiting = [house.promise("wait.mark", "waiting", priority=BULK if n % 2 else 0) for n in range(20)]
    house.until(lambda: all(house.row(run_id).rung_at for run_id in waiting))
    with house.server() as server:
        server.flushall()
    house.until(lambda: house.states() == {SUCCESS: 22}, why=house.states)
    words = [line[1] for line in house.effects()]
    assert words.count("waiting") == 20


def test_message_is_put_back_when_the_database_cannot_be_asked(house: Stand) -> None:
    """A claim that fails must not cost the run its bell: it goes on as soon as the database is back."""
    worker = house.worker("wait", ring_again_seconds=600.0)
    connection = house.database.engine.raw_connection()
    connection.execute("PRAGMA query_only=OFF")  # type: ignore[attr-defined]
    run_id = house.promise("wait.mark", "locked", due_at=house.database.now().replace(year=2099))
    connection.execute("ALTER TABLE runs RENAME TO gone")  # type: ignore[attr-defined]
    house.app.send_task("wait.mark", args=([run_id],), task_id=run_id, queue="wait")
    house.until(lambda: "ring_put_back" in worker.log)
    connection.execute("ALTER TABLE gone RENAME TO runs")  # type: ignore[attr-defined]
    # Due now, and rung as far as the dispatcher knows: only the message itself can start it.
    connection.execute("UPDATE runs SET due_at = 0, rung_at = unixepoch() * 1000000")  # type: ignore[attr-defined]
    connection.close()
    house.until_state(run_id, SUCCESS, seconds=10)


def test_malformed_message_ends_a_worker_and_the_next_one_works(house: Stand) -> None:
    """One item that is no JSON ends the main process in every version of Celery; its cure is a restart."""
    worker = house.worker("wait")
    with house.server() as server:
        server.lpush("wait", "this is no JSON")
    assert worker.wait(20) != 0
    run_id = house.promise("wait.mark", "next")
    house.worker("wait", "next")
    house.until_state(run_id, SUCCESS)
