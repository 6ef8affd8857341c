# SPDX-License-Identifier: Apache-2.0
"""What a promise promises, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from conferral.reliable.errors import Retryable, RoutingError
from conferral.reliable.promises import BULK, Promise, promise, promise_all
from conferral.reliable.runs import claim, retry
from conferral.reliable.tables import PENDING, RETRY, STARTED, runs
from support.reliable_database import House, house_on, rings_of


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


class _Undone(Exception):
    """The caller's transaction fails."""


def test_nothing_remains_and_nothing_rings_when_the_caller_rolls_back(house: House) -> None:
    """A promise is part of the caller's commit, or it never was."""

    def fail_after_promising() -> None:
        with house.database.transaction() as session:
            promise(session, "fast.do", ["a"], key="once")
            promise(session, "fast.do", [], coalesce="again")
            raise _Undone

    with pytest.raises(_Undone):
        fail_after_promising()
    assert house.count() == 0
    assert house.bell.take() == []


def test_interactive_run_rings_once_after_the_commit_when_it_is_due(house: House) -> None:
    """Somebody waits: the bell rings at once, alone, and only when the row stands."""
    with house.database.transaction() as session:
        run_id = promise(session, "fast.do", ["a"])
        assert house.bell.rung == []
    assert [ring.run_id for ring in rings_of(house)] == [run_id]
    row = house.one(run_id)
    assert (row.state, row.queue, row.args, row.attempt, row.spent) == (PENDING, "fast", ["a"], 0, 0)
    assert row.rung_at == house.time() == row.due_at == row.created_at


@pytest.mark.parametrize("options", [{"priority": BULK}, {"due_at": "later"}, {"task": "rationed.do"}])
def test_run_is_left_to_the_dispatcher_when_it_is_bulk_later_or_rationed(
    house: House, options: dict[str, object]
) -> None:
    """Only the dispatcher knows bounds, times and rates."""
    if options.get("due_at"):
        options = {"due_at": house.time() + timedelta(seconds=5)}
    run_id = house.promise(
        str(options.get("task", "fast.do")), **{k: v for k, v in options.items() if k != "task"}
    )
    assert rings_of(house) == []
    assert house.one(run_id).rung_at is None


def test_existing_run_is_returned_when_the_key_is_taken_for_ever(house: House) -> None:
    """One e-mail per credential and kind is a unique key, also after the run has ended."""
    first = house.promise(key="mail:1")
    (run,) = house.claim(first)
    with house.database.transaction() as session:
        run.settle(session)
    house.bell.take()
    assert house.promise(key="mail:1", args=("b",)) == first
    assert rings_of(house) == []
    assert house.one(first).args == ["a"]
    assert house.count() == 1


def test_only_new_ids_are_returned_when_some_keys_are_taken(house: House) -> None:
    """Bulk promises skip what is promised already, also within one call."""
    taken = house.promise(key="k1")
    house.bell.take()
    wanted = [Promise(task="fast.do", args=[key], key=key) for key in ("k1", "k2", "k3", "k3")]
    with house.database.transaction() as session:
        new = promise_all(session, wanted)
    assert taken not in new
    assert len(new) == 2
    assert sorted(ring.run_id for ring in rings_of(house)) == sorted(new)
    with house.database.transaction() as session:
        assert promise_all(session, []) == []


def test_unclaimed_run_is_pulled_forward_and_not_rung_when_promises_coalesce(house: House) -> None:
    """There is work: one waiting run is enough, at the earliest of the wanted times."""
    later = house.time() + timedelta(seconds=60)
    first = house.promise(coalesce="log", due_at=later)
    assert house.promise(coalesce="log", due_at=later + timedelta(seconds=60)) == first
    assert house.one(first).due_at == later
    assert house.promise(coalesce="log") == first
    assert house.one(first).due_at == house.time()
    assert rings_of(house) == []
    assert house.count() == 1


def test_new_run_is_promised_when_the_coalesced_one_is_claimed(house: House) -> None:
    """A claimed run may have read too early: the wake-up becomes a run of its own."""
    first = house.promise(coalesce="log")
    house.claim(first)
    second = house.promise(coalesce="log")
    assert second != first
    assert (house.state(first), house.state(second)) == (STARTED, PENDING)


def test_backoff_is_kept_when_a_coalesced_run_waits_in_retry(house: House) -> None:
    """Every new leaf would otherwise turn a failing sequencer into a hot loop."""
    first = house.promise(coalesce="log")
    (run,) = house.claim(first)
    with house.database.transaction() as session:
        retry(session, run, Retryable("log_halted"), outcome="retry", delay_seconds=40)
    assert house.promise(coalesce="log") == first
    assert house.state(first) == RETRY
    assert house.one(first).due_at == house.time() + timedelta(seconds=40)


def test_promise_is_refused_when_it_makes_no_sense(house: House) -> None:
    """A task without a route, and a promise that is both once and again, are bugs that speak."""
    with house.database.transaction() as session:
        with pytest.raises(RoutingError, match="task nowhere"):
            promise(session, "nowhere.do", [])
        with pytest.raises(ValueError, match="not both"):
            promise(session, "fast.do", [], key="k", coalesce="c")
        with pytest.raises(ValueError, match="last statement"):
            promise_all(session, [Promise(task="fast.do", args=[], coalesce="c")])
    assert house.count() == 0


def test_run_comes_within_a_sweep_when_the_bell_could_not_be_rung(house: House) -> None:
    """Redis is away: the promise stands, unmarked, and the dispatcher's next pass rings it."""
    house.bell.works = False
    run_id = house.promise()
    row = house.one(run_id)
    assert (row.state, row.rung_at) == (PENDING, None)


def test_times_are_equal_on_every_database_when_they_come_back(house: House) -> None:
    """Microseconds survive, zones do not matter, naive times are refused."""
    run_id = house.promise(due_at=house.time() + timedelta(microseconds=1))
    row = house.one(run_id)
    assert row.due_at - row.created_at == timedelta(microseconds=1)
    assert row.due_at.utcoffset() == timedelta(0)
    naive = house.time().replace(tzinfo=None)
    with house.database.snapshot() as session, pytest.raises(Exception, match="naive time reached"):
        session.execute(select(runs.c.id).where(runs.c.due_at < naive)).all()


def test_claim_in_the_promising_transaction_is_possible_when_nothing_is_committed(house: House) -> None:
    """The layer does not depend on when the caller commits."""
    with house.database.transaction() as session:
        run_id = promise(session, "fast.do", [])
        assert [run.id for run in claim(session, [run_id], owner="x", lease_seconds=1)] == [run_id]
