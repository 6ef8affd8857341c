# SPDX-License-Identifier: Apache-2.0
"""What the dispatcher rings, how much of it and in which order, on both databases; its bell is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from conferral.reliable import pauses, rescue
from conferral.reliable.bell import Bundle
from conferral.reliable.dispatcher import Dispatcher
from conferral.reliable.holding import Holding, Presence
from conferral.reliable.promises import BULK, Promise, promise_all
from conferral.reliable.routing import MIN_QUEUE_BOUND
from conferral.reliable.tables import RETRY, STARTED
from conferral.reliable.task import MAX_BUNDLE, Task
from support.reliable_database import House, house_on


def nothing(*_: Any) -> None:
    """Do nothing."""


TASKS = {
    task.name: task
    for task in (
        Task("fast.do", nothing),
        Task("slow.do", nothing),
        Task("fast.many", nothing, bundle=MAX_BUNDLE),
        Task("fast.few", nothing, bundle=3),
        Task("rationed.do", nothing),
    )
}


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


class Ringer(Dispatcher):
    """A dispatcher whose bell is recorded and whose broker's list has the length it is told."""

    def __init__(self, house: House, **options: Any) -> None:
        super().__init__(None, house.context(**options), TASKS, "test holder")  # type: ignore[arg-type]
        self._bell = house.bell
        self.listed = 0

    def _length(self, _: str) -> int:
        return self.listed


def promise_many(house: House, count: int, name: str = "fast.do", **options: Any) -> list[str]:
    """Promise many bulk runs, a microsecond apart."""
    options = {"priority": BULK, **options}
    start = house.time()
    wanted = [
        Promise(task=name, args=[str(n)], due_at=start + timedelta(microseconds=n - count), **options)
        for n in range(count)
    ]
    with house.database.transaction() as session:
        return promise_all(session, wanted)


def ids_of(bundles: list[Bundle]) -> list[str]:
    """Return the runs of bundles in order."""
    return [run_id for one in bundles for run_id in one.run_ids]


def test_queue_is_topped_up_to_its_bound_and_no_further(house: House) -> None:
    """A batch of a million sits in the database, and Redis stays small."""
    ids = promise_many(house, MIN_QUEUE_BOUND + 10)
    ringer = Ringer(house)
    assert ringer.sweep() is True
    rung = ids_of(house.bell.take())
    assert rung == ids[:MIN_QUEUE_BOUND]
    assert ringer.sweep() is False
    assert house.bell.take() == []
    house.claim(rung[0])
    assert ringer.sweep() is True
    assert ids_of(house.bell.take()) == [ids[MIN_QUEUE_BOUND]]


def test_bound_grows_with_the_consumers_that_are_alive(house: House) -> None:
    """Four messages a slot keep the slots busy between two passes."""
    promise_many(house, 200)
    holding = Holding(house.context())
    holding._presence = Presence("slow@host", "slow", ("fast",), slots=30)
    holding.renew()
    Ringer(house).sweep()
    assert len(ids_of(house.bell.take())) == 120


def test_later_and_finished_runs_are_not_rung(house: House) -> None:
    """Only what is due, and each once."""
    promise_many(house, 1)
    house.promise(priority=BULK, due_at=house.time() + timedelta(seconds=5))
    ringer = Ringer(house)
    ringer.sweep()
    assert len(house.bell.take()) == 1
    house.time.move(5)
    ringer.sweep()
    assert len(house.bell.take()) == 1


def test_interactive_runs_go_first_and_every_8th_is_bulk(house: House) -> None:
    """A click never waits behind a batch, and a stream of clicks cannot starve it."""
    bulk = set(promise_many(house, 100))
    clicks = set(promise_many(house, 100, priority=0))
    house.lose_bells(sorted(clicks))
    Ringer(house).sweep()
    rung = ids_of(house.bell.take())
    assert len(rung) == MIN_QUEUE_BOUND
    assert sum(run_id in bulk for run_id in rung) == MIN_QUEUE_BOUND // 8
    assert set(rung[: MIN_QUEUE_BOUND * 7 // 8]) <= clicks


def test_bulk_keeps_its_share_when_clicks_fill_the_bound_or_come_one_by_one(house: House) -> None:
    """Clicks are rung past the bound by whoever promises them; the batch goes on beside them."""
    clicks = [house.promise() for _ in range(MIN_QUEUE_BOUND)]
    house.bell.take()
    bulk = promise_many(house, 100)
    ringer = Ringer(house)
    ringer.sweep()
    assert ids_of(house.bell.take()) == bulk[: MIN_QUEUE_BOUND // 8]
    ringer.sweep()
    assert house.bell.take() == []
    house.lose_bells(clicks[:40])
    waiting, rung = set(bulk), []
    for run_id in clicks[40:] + clicks[:16]:  # one slot becomes free at a time
        house.claim(run_id)
        ringer.sweep()
        rung += ids_of(house.bell.take())
    assert sum(run_id in waiting for run_id in rung) >= len(rung) // 8 > 0


def test_tenants_take_turns_and_the_rest_of_a_share_goes_to_those_that_have_more(house: House) -> None:
    """B's 10 are not behind A's 10,000; and one tenant alone may use everything."""
    promise_many(house, 300, tenant="a")
    promise_many(house, 10, tenant="b")
    promise_many(house, 40, tenant="c")
    ringer = Ringer(house)
    ringer.sweep()
    rung = ids_of(house.bell.take())
    tenants = [house.one(run_id).tenant for run_id in rung]
    assert tenants[:6] == ["a", "b", "c", "a", "b", "c"]
    assert Counter(tenants) == {"a": 27, "b": 10, "c": 27}


def test_turn_goes_on_after_the_tenant_served_last_when_there_are_more_than_fit(house: House) -> None:
    """Nobody is served twice before everybody was served once."""
    for number in range(100):
        promise_many(house, 2, tenant=f"t{number:03}")
    ringer = Ringer(house)
    served: list[str] = []
    for _ in range(3):
        ringer.sweep()
        rung = ids_of(house.bell.take())
        served += [house.one(run_id).tenant for run_id in rung]
        for run_id in rung:
            house.claim(run_id)
    assert set(Counter(served[:100]).values()) == {1}
    assert set(Counter(served[:192]).values()) == {1, 2}


def test_tenants_with_later_runs_take_no_share(house: House) -> None:
    """A thousand tenants with retries for tomorrow must not slow the batch that is due today."""
    tomorrow = house.time() + timedelta(days=1)
    with house.database.transaction() as session:
        promise_all(
            session,
            [
                Promise(task="fast.do", args=[], tenant=f"t{n:03}", priority=BULK, due_at=tomorrow)
                for n in range(300)
            ],
        )
    promise_many(house, 100, tenant="z")
    assert Ringer(house).sweep() is True
    assert len(ids_of(house.bell.take())) == MIN_QUEUE_BOUND


def test_tenant_is_served_when_more_tenants_than_fit_have_nothing_but_paused_runs(house: House) -> None:
    """What others hold back takes no turn, not even before it is moved out of the index."""
    for n in range(MIN_QUEUE_BOUND + 10):
        promise_many(house, 1, tenant=f"a{n:03}", group_key="held")
    (free,) = promise_many(house, 1, tenant="z")
    (nobodys,) = promise_many(house, 1)
    with house.database.transaction() as session:
        pauses.pause(session, "group", "held")
    ringer = Ringer(house)
    ringer._move_groups = lambda: False  # type: ignore[method-assign]
    ringer.sweep()
    assert sorted(ids_of(house.bell.take())) == sorted([free, nobodys])


def test_no_statement_is_made_for_each_tenant_when_there_are_many(house: House) -> None:
    """Hundreds of organisations with a batch each must not make every pass of the dispatcher slow."""
    made: list[str] = []
    event.listen(house.database.engine, "before_cursor_execute", lambda *told: made.append(told[2]))
    counts = []
    for tenants in (MIN_QUEUE_BOUND, 2 * MIN_QUEUE_BOUND):
        for n in range(tenants):
            promise_many(house, 1, tenant=f"{tenants}-{n:03}")
        made.clear()
        Ringer(house).sweep()
        counts.append(len(made))
        bells = ids_of(house.bell.take())
        assert len(bells) == MIN_QUEUE_BOUND
        house.claim(*bells)
    assert counts[1] <= counts[0] < 60


def test_paused_queues_and_groups_are_not_rung(house: House) -> None:
    """And everything comes when the pause ends."""
    held = promise_many(house, 3, group_key="held")
    free = promise_many(house, 2, group_key="free") + promise_many(house, 1)
    slow = promise_many(house, 1, "slow.do")
    with house.database.transaction() as session:
        pauses.pause(session, "group", "held")
        pauses.pause(session, "queue", "slow")
    ringer = Ringer(house)
    ringer.sweep()
    assert sorted(ids_of(house.bell.take())) == sorted(free)
    with house.database.transaction() as session:
        pauses.resume(session, "group", "held")
        pauses.resume(session, "queue", "slow")
    ringer.sweep()
    assert sorted(ids_of(house.bell.take())) == sorted(held + slow)


def test_run_is_rung_again_when_nobody_claimed_it_unless_the_list_is_full(house: House) -> None:
    """A lost message heals; work that is merely slow is not rung without end."""
    run_id = house.promise()
    house.bell.take()
    ringer = Ringer(house, ring_again_seconds=7)
    house.time.move(7)
    ringer.sweep()
    ringer.sweep()
    assert house.bell.take() == []
    house.time.move(1)
    ringer.listed = MIN_QUEUE_BOUND
    ringer.sweep()
    ringer.sweep()
    assert house.bell.take() == []
    ringer.listed = MIN_QUEUE_BOUND - 1
    ringer.sweep()
    ringer.sweep()
    assert ids_of(house.bell.take()) == [run_id]


def test_nothing_stays_marked_when_the_bell_cannot_be_rung(house: House) -> None:
    """Redis is away: the next pass tries again, without haste."""
    ids = promise_many(house, MIN_QUEUE_BOUND)
    house.bell.works = False
    ringer = Ringer(house)
    assert ringer.sweep() is False
    assert {house.one(run_id).rung_at for run_id in ids} == {None}
    house.bell.works = True
    ringer.sweep()
    assert ids_of(house.bell.take()) == ids


def test_queue_is_given_no_more_than_its_rate(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer with a limit is not overrun; what was not used is saved for one second at most."""
    passed = [100.0]
    monkeypatch.setattr("conferral.reliable.dispatcher.time.monotonic", lambda: passed[0])
    promise_many(house, 20, "rationed.do")
    ringer, rung = Ringer(house), []
    for seconds in (0.0, 0.2, 0.3, 0.5, 10.0):
        passed[0] += seconds
        ringer.sweep()
        rung.append(len(ids_of(house.bell.take())))
    assert rung == [2, 0, 1, 1, 2]


def test_bulk_runs_of_one_task_and_destination_share_a_message(house: House) -> None:
    """Up to 32 runs of one task, never two destinations, never one that was tried before."""
    promise_many(house, 40, "fast.many", bundle_key="a")
    promise_many(house, 2, "fast.many", bundle_key="b")
    promise_many(house, 4, "fast.few")
    promise_many(house, 2)
    tried = promise_many(house, 1, "fast.many", bundle_key="b")[0]
    house.claim(tried)
    with house.database.transaction() as session:
        house.time.move(31)
        rescue.rescue_expired(session, lambda _: None)
    click = house.promise("fast.many", bundle_key="a")
    house.lose_bells([click])
    house.bell.take()
    Ringer(house).sweep()
    rung = house.bell.take()
    assert rung[0].run_ids == (click,)
    assert sorted((one.task, len(one.run_ids)) for one in rung) == [
        ("fast.do", 1), ("fast.do", 1), ("fast.few", 1), ("fast.few", 3),
        ("fast.many", 1), ("fast.many", 1), ("fast.many", 2), ("fast.many", 8), ("fast.many", 32),
    ]  # fmt: skip
    for one in rung:
        assert len({house.one(run_id).bundle_key for run_id in one.run_ids}) == 1
        assert tried not in one.run_ids or len(one.run_ids) == 1


def test_runs_of_dead_and_frozen_workers_are_rescued_and_rung_by_a_pass(house: House) -> None:
    """Also those about which no message tells anybody: the dispatcher looks at every pass."""
    boot, namespace, pid, _ = house.owner.split("/")
    orphan, frozen, alive = house.promise(), house.promise(), house.promise()
    house.claim(frozen, owner="elsewhere/1/1/1")
    house.time.move(31)
    house.claim(orphan, owner=f"{boot}/{namespace}/{pid}/1")
    house.claim(alive)
    house.bell.take()
    Ringer(house).sweep()
    assert sorted(ids_of(house.bell.take())) == sorted([orphan, frozen])
    assert [house.state(run_id) for run_id in (orphan, frozen, alive)] == [RETRY, RETRY, STARTED]
