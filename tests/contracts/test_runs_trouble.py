# SPDX-License-Identifier: Apache-2.0
"""What the executor does in trouble: bundles, forged and early messages, a database that goes away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from conferral.reliable import pauses, rescue
from conferral.reliable.backoff import RetryPolicy
from conferral.reliable.errors import LeaseLost, Permanent, Retryable
from conferral.reliable.promises import BULK
from conferral.reliable.runs import Run
from conferral.reliable.tables import FAILURE, PENDING, RETRY, STARTED, SUCCESS
from conferral.reliable.task import BUNDLE_SECONDS, FENCED, Task, Unclaimed
from conferral.reliable.testing import SimulatedCrash, crash_at
from support.reliable_database import House, house_on, rings_of

POLICY = RetryPolicy((10.0, 20.0))


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


def execute(house: House, function: Callable[..., Any], *run_ids: str, **options: Any) -> list[Run]:
    """Execute runs of `fast.do` as a function."""
    context = {key: options.pop(key) for key in ("random", "transaction") if key in options}
    declared = Task("fast.do", function, **{"policy": POLICY, **options})
    return house.executor({"fast.do": declared}, **context).execute("fast.do", run_ids)


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a task that raises."""

    def function(*_: Any) -> None:
        raise error

    return function


def test_bundle_goes_on_when_one_of_its_runs_fails(house: House) -> None:
    """Each run of a message is settled by itself."""
    ids = [house.promise(args=(str(n),), priority=BULK) for n in range(4)]

    def function(_: Run, number: str) -> None:
        if number == "1":
            raise Retryable("busy")

    executed = execute(house, function, *ids, ids[0])
    assert [run.outcome for run in executed] == [SUCCESS, RETRY, SUCCESS, SUCCESS]
    assert [house.one(run_id).started_at is not None for run_id in ids] == [True] * 4


def test_bundle_ends_at_the_first_failure_when_its_runs_share_a_destination(house: House) -> None:
    """A slow endpoint is asked once, and the rest waits uncharged."""
    ids = [house.promise(args=(str(n),), priority=BULK, bundle_key="ep") for n in range(4)]
    asked: list[str] = []

    def function(_: Run, number: str) -> None:
        asked.append(number)
        if number == "1":
            raise Retryable("endpoint_timeout")

    execute(house, function, *ids, stops_at_failure=True)
    assert asked == ["0", "1"]
    assert [house.state(run_id) for run_id in ids] == [SUCCESS, RETRY, PENDING, PENDING]
    assert [house.one(run_id).spent for run_id in ids] == [1, 1, 0, 0]


def test_rest_of_a_bundle_is_given_back_when_it_takes_too_long(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour's slow effect does not delay the rest for long."""
    passed = [0.0]
    monkeypatch.setattr("conferral.reliable.task.time.monotonic", lambda: passed[0])
    ids = [house.promise(priority=BULK) for _ in range(3)]

    def slow(*_: Any) -> None:
        passed[0] += BUNDLE_SECONDS + 1

    execute(house, slow, *ids)
    assert [house.state(run_id) for run_id in ids] == [SUCCESS, PENDING, PENDING]


def test_other_tasks_runs_are_refused_when_a_message_names_them(house: House) -> None:
    """A forged message must not feed one task's ids to another."""
    run_id = house.promise("fast.other")
    assert execute(house, lambda *_: None, run_id) == []
    assert house.state(run_id) == PENDING


def test_bell_is_rung_again_when_a_claim_was_refused_though_it_was_rung(house: House) -> None:
    """A bell that came too early, or into a pause, is used up: the dispatcher must ring another."""
    run_id = house.promise()
    with house.database.transaction() as session:
        pauses.pause(session, "queue", "fast")
    assert house.one(run_id).rung_at is not None
    assert execute(house, lambda *_: None, run_id) == []
    assert house.one(run_id).rung_at is None


def dead_sibling(house: House) -> str:
    """Return the name of a process of this host that no longer exists."""
    boot, namespace, pid, _ = house.owner.split("/")
    return f"{boot}/{namespace}/{pid}/1"


def test_run_of_a_dead_child_is_rung_at_once_when_its_message_comes_back(house: House) -> None:
    """Whoever is rung for a run whose owner on this host is gone rescues it."""
    executor = house.executor({"fast.do": Task("fast.do", lambda *_: None)})
    executor.execute("fast.do", [house.promise()])
    run_id = house.promise()
    house.claim(run_id, owner=dead_sibling(house))
    house.bell.take()
    assert executor.execute("fast.do", [run_id]) == []
    assert house.state(run_id) == RETRY
    assert [ring.run_id for ring in rings_of(house)] == [run_id]
    (run,) = executor.execute("fast.do", [run_id])
    assert (run.outcome, run.attempt) == (SUCCESS, 2)


def test_run_of_a_dead_child_goes_on_first_when_a_new_process_takes_its_place(house: House) -> None:
    """The broker puts a dead child's message behind all others; its run must not wait for a batch."""
    begun: list[str] = []
    interrupted, waiting = house.promise(priority=BULK), house.promise(priority=BULK)
    house.claim(interrupted, owner=dead_sibling(house))
    executor = house.executor({"fast.do": Task("fast.do", lambda run, *_: begun.append(run.id))})
    executed = executor.execute("fast.do", [waiting])
    assert begun == [run.id for run in executed] == [interrupted, waiting]
    assert house.one(interrupted).attempt == 2


def test_one_interrupted_run_is_taken_over_when_a_process_is_new(house: House) -> None:
    """Each new process has the place of one that died: the others are somebody else's, or are rung."""
    ids = [house.promise() for _ in range(2)]
    for run_id in ids:
        house.claim(run_id, owner=dead_sibling(house))
    executor = house.executor({"fast.do": Task("fast.do", lambda *_: None)})
    executor.execute("fast.do", [house.promise()])
    executor.execute("fast.do", [house.promise()])
    assert sorted(house.state(run_id) for run_id in ids) == [RETRY, SUCCESS]


def test_lease_is_let_go_when_the_task_leaves_by_a_side_door(house: House) -> None:
    """A lease under which nobody works is not renewed, or its run would never come back."""
    run_id = house.promise()
    executor = house.executor({"fast.do": Task("fast.do", raising(KeyboardInterrupt()))})
    with pytest.raises(KeyboardInterrupt):
        executor.execute("fast.do", [run_id])
    assert executor._holding._held == {}
    ids = [house.promise(priority=BULK) for _ in range(2)]
    executor = house.executor({"fast.do": Task("fast.do", lambda *_: None)})
    with crash_at("claimed"):
        executor.execute("fast.do", ids)
    assert executor._holding._held == {}


class Flaky:
    """A database whose transactions fail as often as it is told to."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.failures = 0

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a transaction, or fail as a lost connection does."""
        if self.failures:
            self.failures -= 1
            raise OperationalError("select 1", {}, Exception("gone"))
        with self.house.database.transaction() as session:
            yield session


def test_nothing_is_executed_when_the_database_is_gone_at_the_claim(house: House) -> None:
    """No effect without a claim; the message goes back."""
    flaky, called = Flaky(house), []
    run_id = house.promise()
    flaky.failures = 1
    with pytest.raises(Unclaimed, match="OperationalError"):
        execute(house, lambda *_: called.append(1), run_id, transaction=flaky.transaction)
    assert (called, house.state(run_id)) == ([], PENDING)


def test_failure_is_recorded_when_the_database_comes_back_in_time(house: House) -> None:
    """What cannot be recorded would be done again: a permanent refusal above all."""
    flaky = Flaky(house)
    run_id = house.promise()

    def refuse(*_: Any) -> None:
        flaky.failures = 1
        raise Permanent("mail_refused")

    (run,) = execute(house, refuse, run_id, transaction=flaky.transaction)
    assert (run.outcome, house.state(run_id)) == (FAILURE, FAILURE)


def test_rest_goes_on_when_a_fence_or_failure_cannot_be_recorded(house: House) -> None:
    """A database that is gone for long costs the lease, not the worker thread."""
    flaky = Flaky(house)
    ids = [house.promise(args=(str(n),), priority=BULK) for n in range(3)]

    def function(_: Run, number: str) -> None:
        if number == "0":
            flaky.failures = 2
            raise Retryable("busy")
        if number == "1":
            flaky.failures = 1
            raise LeaseLost

    executed = execute(house, function, *ids, transaction=flaky.transaction)
    assert [run.outcome for run in executed] == [None, FENCED, SUCCESS]
    house.time.move(31)
    with house.database.transaction() as session:
        assert len(rescue.rescue_expired(session, lambda _: None)) == 2


def test_each_run_is_executed_once_when_threads_race_for_it(house: House) -> None:
    """Duplicate messages are harmless by construction."""
    ids = [house.promise() for _ in range(8)]
    executed: list[str] = []
    declared = {"fast.do": Task("fast.do", lambda run, _: executed.append(run.id))}
    executor = house.executor(declared)
    gate = threading.Barrier(6)

    def race() -> None:
        gate.wait()
        for run_id in ids:
            executor.execute("fast.do", [run_id])

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(executed) == sorted(ids)
    assert {house.state(run_id) for run_id in ids} == {SUCCESS}


def test_effect_is_repeated_and_its_record_is_not_when_the_worker_dies_before_the_commit(
    house: House,
) -> None:
    """The only place where a repeat is possible: between the peer's answer and our commit."""
    run_id = house.promise()
    with crash_at("settle.before_commit", task="fast.do"):
        execute(house, lambda *_: "first", run_id)
    assert (house.state(run_id), house.outcomes(run_id)) == (STARTED, [])
    with crash_at("settle.after_commit"):
        house.time.move(31)
        with house.database.transaction() as session:
            rescue.rescue_expired(session, lambda _: None)
        execute(house, lambda *_: "second", run_id)
    assert house.one(run_id).result == "second"
    assert not issubclass(SimulatedCrash, Exception)


def test_rest_of_a_bundle_does_not_begin_when_its_group_is_paused(house: House) -> None:
    """What was claimed behind others is given back, uncharged: from the commit of a pause nothing begins."""
    ids = [house.promise(args=(str(n),), priority=BULK, group_key="bat") for n in range(3)]
    begun: list[str] = []

    def function(_: Run, number: str) -> None:
        begun.append(number)
        with house.database.transaction() as session:
            pauses.pause(session, "group", "bat")

    execute(house, function, *ids)
    assert begun == ["0"]
    assert [house.state(run_id) for run_id in ids] == [SUCCESS, PENDING, PENDING]
    assert [house.one(run_id).spent for run_id in ids] == [1, 0, 0]
    assert house.claim(ids[1]) == []
