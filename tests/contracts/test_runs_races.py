# SPDX-License-Identifier: Apache-2.0
"""Races between processes and threads, with the real clock, on both databases."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select, update

import support
from conferral.reliable import leadership
from conferral.reliable.promises import promise
from conferral.reliable.tables import CLAIMABLE, PENDING, SUCCESS, runs
from support.reliable_database import House, house_on

WRITERS = 6
RACE_SECONDS = 2.0
APPENDING_SECONDS = 0.3


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house with the real clock on each database in turn."""
    with house_on(request.param, tmp_path, clock=lambda: datetime.now(UTC)) as found:
        yield found


def test_each_run_is_claimed_by_one_when_processes_race(house: House) -> None:
    """Four processes go through the same 40 runs in the same order at the same time."""
    ids = [house.promise() for _ in range(40)]
    tests = str(Path(next(iter(support.__path__))).parent)
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "support.reliable_racer", house.url, *ids],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((tests, os.environ.get("PYTHONPATH", "")))},
        )
        for _ in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    assert sorted(run_id for ids_of_one in won for run_id in ids_of_one) == sorted(ids)
    assert {house.state(run_id) for run_id in ids} == {SUCCESS}


def test_no_wake_up_is_lost_when_appenders_meet_claims(house: House) -> None:
    """Every appended leaf is seen by a turn that began after its commit, however claims fall.

    With ON CONFLICT DO NOTHING this fails on PostgreSQL: an appender that meets a run being
    claimed at that instant commits a leaf that nobody will look at.
    """
    product = MetaData()
    leaves = Table(
        "race_leaves", product, Column("id", Integer, primary_key=True), Column("seen", Integer, default=0)
    )
    product.create_all(house.database.engine)
    until = time.monotonic() + RACE_SECONDS

    def append() -> None:
        while time.monotonic() < until:
            with house.database.transaction() as session:
                session.execute(insert(leaves).values(seen=0))
                promise(session, "fast.sequence", [], coalesce="log.sequence")

    appenders = [threading.Thread(target=append) for _ in range(WRITERS)]
    for appender in appenders:
        appender.start()
    turns = 0
    while any(appender.is_alive() for appender in appenders) or _waits(house):
        turns += _take_a_turn(house, leaves)
    with house.database.snapshot() as session:
        unseen = session.execute(
            select(func.count()).select_from(leaves).where(leaves.c.seen == 0)
        ).scalar_one()
        appended = session.execute(select(func.count()).select_from(leaves)).scalar_one()
    product.drop_all(house.database.engine)
    assert appended > turns > 0  # SQLite's waiting is unfair: there it may be two or three
    assert unseen == 0


def test_claim_waits_for_the_appender_that_counts_on_its_run(house: House) -> None:
    """Whoever was told that a waiting run will do the work commits before that run can begin."""
    run_id = house.promise(coalesce="log.sequence")
    claimed_at: list[float] = []

    def claim_it() -> None:
        house.claim(run_id)
        claimed_at.append(time.monotonic())

    turn = threading.Thread(target=claim_it)
    with house.database.transaction() as session:
        assert promise(session, "fast.sequence", [], coalesce="log.sequence") == run_id
        turn.start()
        turn.join(APPENDING_SECONDS)
        committed_at = time.monotonic()
    turn.join()
    assert claimed_at[0] > committed_at


def _waits(house: House) -> bool:
    with house.database.snapshot() as session:
        return session.execute(select(runs.c.id).where(CLAIMABLE).limit(1)).first() is not None


def _take_a_turn(house: House, leaves: Table) -> int:
    with house.database.snapshot() as session:
        waiting = list(session.execute(select(runs.c.id).where(runs.c.state == PENDING)).scalars())
    for run_id in waiting:
        for run in house.claim(run_id):
            with house.database.transaction() as session:
                session.execute(update(leaves).where(leaves.c.seen == 0).values(seen=1))
                run.settle(session)
    return len(waiting)


def test_one_leads_when_many_want_to(house: House) -> None:
    """Threads of eight holders ask at once: one epoch, one holder."""
    gate = threading.Barrier(8)
    epochs: list[int | None] = []

    def want(holder: str) -> None:
        gate.wait()
        with house.database.transaction() as session:
            epochs.append(leadership.lead(session, "dispatcher", holder))

    threads = [threading.Thread(target=want, args=(f"holder-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epochs, key=str) == [1, *[None] * 7]
