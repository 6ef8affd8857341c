# SPDX-License-Identifier: Apache-2.0
"""A paused group leaves the index of what is due in bounded steps and comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from conferral.reliable import dead_letters, destinations, pauses, runs
from conferral.reliable.dispatcher import Dispatcher
from conferral.reliable.errors import Permanent, Retryable
from conferral.reliable.promises import BULK
from conferral.reliable.tables import RETRY, UNRUNG
from conferral.reliable.tables import pauses as pauses_table
from conferral.reliable.tables import runs as table
from support.reliable_database import House, house_on


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


class Ringer(Dispatcher):
    """A dispatcher whose bell is recorded."""

    def __init__(self, house: House) -> None:
        super().__init__(None, house.context(), {}, "test holder")  # type: ignore[arg-type]
        self._bell = house.bell

    def _length(self, _: str) -> int:
        return 0


def many(house: House, count: int, **options: Any) -> list[str]:
    """Promise bulk runs of the group `batch`."""
    return [house.promise(priority=BULK, **{"group_key": "batch", **options}) for _ in range(count)]


def pause(house: House) -> None:
    """Pause the group."""
    with house.database.transaction() as session:
        pauses.pause(session, "group", "batch")


def resume(house: House) -> None:
    """Resume the group."""
    with house.database.transaction() as session:
        pauses.resume(session, "group", "batch")


def step(house: House, limit: int) -> bool:
    """Move some runs of the group."""
    with house.database.transaction() as session:
        return pauses.move_group(session, "batch", limit)


def unrung(house: House) -> set[str]:
    """Return what the dispatcher's index holds."""
    with house.database.snapshot() as session:
        return set(session.execute(select(table.c.id).where(UNRUNG)).scalars())


def test_paused_runs_leave_the_index_in_steps_and_return_as_they_were(house: House) -> None:
    """Each step is bounded, whoever dies between two of them; a run keeps its time."""
    now = house.time()
    due = many(house, 3)
    later = many(house, 2, due_at=now + timedelta(hours=1))
    (retried,) = many(house, 1)
    free = house.promise(priority=BULK)
    (run,) = house.claim(retried)
    with house.database.transaction() as session:
        runs.retry(session, run, Retryable("busy"), outcome="retry", delay_seconds=90)
    before = {run_id: house.one(run_id).due_at for run_id in (*due, *later, retried)}
    pause(house)
    assert step(house, 4) is True
    assert len(unrung(house)) == 3
    assert step(house, 4) is False
    assert unrung(house) == {free}
    resume(house)
    assert house.claim(due[0]) != []  # already, and not only when it is released
    assert step(house, 4) is True
    assert step(house, 4) is False
    assert unrung(house) == {*due[1:], *later, retried, free}
    assert {run_id: house.one(run_id).due_at for run_id in before} == before
    assert house.state(retried) == RETRY
    with house.database.snapshot() as session:
        assert session.execute(select(pauses_table)).all() == []


def test_runs_are_released_by_a_successor_when_the_dispatcher_dies(house: House) -> None:
    """What is to be released stands in the database, not in anybody's memory."""
    ids = many(house, 5)
    pause(house)
    Ringer(house).sweep()
    assert unrung(house) == set()
    resume(house)
    assert step(house, 2) is True  # and here it dies
    Ringer(house).sweep()
    assert sorted(run_id for one in house.bell.take() for run_id in one.run_ids) == sorted(ids)


def test_group_is_held_again_when_it_is_paused_while_it_is_released(house: House) -> None:
    """A person changes their mind faster than 100,000 rows move."""
    ids = many(house, 4)
    pause(house)
    assert step(house, 9) is False
    resume(house)
    assert step(house, 2) is True
    with house.database.transaction() as session:
        assert pauses.pause(session, "group", "batch")
    assert house.claim(ids[0]) == house.claim(ids[3]) == []
    assert step(house, 9) is False
    assert unrung(house) == set()


def test_latecomers_are_stepped_over_and_then_held(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that had begun promises into its paused group waits, too."""
    passed = [0.0]
    monkeypatch.setattr("conferral.reliable.dispatcher.time.monotonic", lambda: passed[0])
    pause(house)
    ringer = Ringer(house)
    ringer.sweep()
    (late,) = many(house, 1)
    ringer.sweep()
    assert (house.bell.take(), unrung(house)) == ([], {late})
    passed[0] += 6
    ringer.sweep()
    assert (house.bell.take(), unrung(house)) == ([], set())


def test_rung_runs_of_a_paused_group_ring_again_when_it_is_resumed(house: House) -> None:
    """Their bell was used up by the pause; nobody waits half a minute for the next one."""
    ids = many(house, 3)
    Ringer(house).sweep()
    assert len(house.bell.take()) == 3
    pause(house)
    Ringer(house).sweep()
    resume(house)
    Ringer(house).sweep()
    assert sorted(run_id for one in house.bell.take() for run_id in one.run_ids) == sorted(ids)


def test_run_is_never_left_held_when_it_is_cancelled_or_replayed_meanwhile(house: House) -> None:
    """A flag that nobody would take off again would hide a run for ever."""
    cancelled, dead, deferred = many(house, 3, bundle_key="relay")
    (run,) = house.claim(dead)
    with house.database.transaction() as session:
        runs.park(session, run, Permanent("mail_refused"))
    pause(house)
    assert step(house, 9) is False
    with house.database.transaction() as session:
        assert runs.cancel(session, cancelled)
        assert dead_letters.replay(session, dead_letters.Filter()) == [dead]
        assert destinations.defer(session, "relay", house.time() + timedelta(hours=1), "down") == 2
    assert house.claim(dead) == []
    resume(house)
    assert step(house, 9) is False
    with house.database.snapshot() as session:
        assert session.execute(select(table.c.id).where(table.c.held.is_(True))).all() == []
    with house.database.transaction() as session:
        assert dead_letters.revive(session, cancelled)
    assert unrung(house) == {cancelled, dead, deferred}


def test_what_waited_for_a_destination_comes_back_when_it_answers(house: House) -> None:
    """Only what waited for nothing else: a run's own retry keeps its time."""
    now = house.time()
    waiting, retried, busy = many(house, 3, bundle_key="relay")
    (run,) = house.claim(retried)
    with house.database.transaction() as session:
        runs.retry(session, run, Retryable("mail_deferred"), outcome="retry", delay_seconds=60)
    house.claim(busy)
    until = now + timedelta(seconds=120)
    with house.database.transaction() as session:
        assert destinations.defer(session, "relay", until, "channel_closed", due_by=now) == 1
    assert house.one(waiting).due_at == until
    with house.database.transaction() as session:
        assert destinations.recall(session, "relay", "channel_closed", now) == 1
    assert house.one(waiting).due_at == now
    assert house.one(retried).due_at == now + timedelta(seconds=60)
