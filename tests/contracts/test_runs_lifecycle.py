# SPDX-License-Identifier: Apache-2.0
"""Claim, settle, retry, snooze, wait, wake, cancel: one conditional statement each, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from conferral.reliable import destinations, pauses, runs, status
from conferral.reliable.errors import LeaseLost, Permanent, Retryable, Snooze
from conferral.reliable.promises import BULK
from conferral.reliable.runs import Run
from conferral.reliable.tables import FAILURE, PENDING, RETRY, REVOKED, STARTED, SUCCESS, WAITING, attempts
from support.reliable_database import House, house_on


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


def retry(house: House, run: Run, *, seconds: float, outcome: str = "retry") -> None:
    """Record a failed attempt."""
    with house.database.transaction() as session:
        runs.retry(session, run, Retryable("busy", "later"), outcome=outcome, delay_seconds=seconds)


def test_claim_returns_nothing_when_the_run_is_held_or_unknown(house: House) -> None:
    """A second ring finds nothing to do, and a forged id does nothing."""
    run_id = house.promise()
    (run,) = house.claim(run_id)
    assert (run.attempt, run.spent, run.args) == (1, 1, ["a"])
    row = house.one(run_id)
    assert (row.state, row.lease_owner) == (STARTED, house.owner)
    assert row.lease_until == house.time() + timedelta(seconds=30)
    assert house.claim(run_id) == []
    assert house.claim("00000000-0000-7000-8000-000000000000") == []


def test_claim_is_refused_when_the_run_belongs_to_another_task(house: House) -> None:
    """A forged message must not feed one task's ids to another."""
    run_id = house.promise("fast.do")
    with house.database.transaction() as session:
        assert runs.claim(session, [run_id], owner="x", lease_seconds=1, task="fast.other") == []
        assert len(runs.claim(session, [run_id], owner="x", lease_seconds=1, task="fast.do")) == 1


def test_claim_is_refused_until_the_run_is_due(house: House) -> None:
    """An early message starts nothing; two hosts' clocks may differ by a moment."""
    run_id = house.promise(due_at=house.time() + timedelta(seconds=10))
    assert house.claim(run_id) == []
    house.time.move(9.5)
    assert house.claim(run_id) == []
    house.time.move(0.4)
    assert len(house.claim(run_id)) == 1


@pytest.mark.parametrize(("scope", "name"), [("queue", "fast"), ("group", "batch_1")])
def test_claim_is_refused_while_the_queue_or_group_is_paused(house: House, scope: Any, name: str) -> None:
    """Nothing new begins once a pause is committed, whatever was rung before it."""
    run_id = house.promise(group_key="batch_1")
    other = house.promise("slow.do")
    with house.database.transaction() as session:
        assert pauses.pause(session, scope, name)
        assert not pauses.pause(session, scope, name)
    assert house.claim(run_id) == []
    assert len(house.claim(other)) == 1
    with house.database.transaction() as session:
        assert pauses.resume(session, scope, name)
        assert not pauses.resume(session, scope, name)
    assert len(house.claim(run_id)) == 1


def test_settle_commits_with_the_effect_when_the_fence_stands(house: House) -> None:
    """Result, attempt and state are one commit; the interactive client is shown it afterwards."""
    run_id = house.promise()
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        run.settle(session, {"credential": "cred_1"}, evidence={"status": 200})
    row = house.one(run_id)
    assert (row.state, row.result, row.lease_owner, row.error_code) == (
        SUCCESS,
        {"credential": "cred_1"},
        None,
        None,
    )
    assert house.outcomes(run_id) == ["success"]
    assert [(one.state, one.result) for one in house.bell.shown] == [
        (STARTED, None),
        (SUCCESS, {"credential": "cred_1"}),
    ]


def test_settle_changes_nothing_when_the_lease_was_lost(house: House) -> None:
    """The zombie's whole transaction is undone, whatever else it wrote."""
    run_id = house.promise()
    (zombie,) = house.claim(run_id)
    retry(house, zombie, seconds=0)
    (second,) = house.claim(run_id)
    with pytest.raises(LeaseLost), house.database.transaction() as session:
        zombie.settle(session, "from the grave")
    with house.database.transaction() as session:
        second.settle(session, "from the living")
    assert house.one(run_id).result == "from the living"
    for late in (zombie, second):
        with pytest.raises(LeaseLost), house.database.transaction() as session:
            runs.park(session, late, Permanent("late"))
    assert house.outcomes(run_id) == ["retry", "success"]


def test_attempt_is_spent_when_retried_and_not_when_snoozed(house: House) -> None:
    """`attempt` fences and only grows; `spent` is what the policy counts; a snooze leaves no row."""
    run_id = house.promise()
    (run,) = house.claim(run_id)
    retry(house, run, seconds=0)
    (run,) = house.claim(run_id)
    assert (run.attempt, run.spent) == (2, 2)
    with house.database.transaction() as session:
        snooze = Snooze("breaker_open", seconds=5)
        runs.retry(session, run, snooze, outcome="snoozed", delay_seconds=5)
    row = house.one(run_id)
    assert (row.state, row.attempt, row.spent, row.error_code) == (RETRY, 2, 1, "breaker_open")
    assert row.due_at == house.time() + timedelta(seconds=5)
    assert (house.outcomes(run_id), row.snoozes) == (["retry"], 1)
    with house.database.snapshot() as session:
        found = status.status_of(session, run_id)
        assert found is not None
        assert (found.state, found.retry_count, found.next_retry_at) == (RETRY, 1, row.due_at)
        assert found.snooze_count == 1
        assert status.status_of(session, "unknown") is None


def test_attempts_are_numbered_without_a_gap_when_snoozes_lie_between(house: House) -> None:
    """The fence counts claims, the history what began: an auditor sees 1..n and no hole."""
    run_id = house.promise()
    asked_nobody = Snooze("breaker_open", seconds=0)
    refused = Snooze("smtp_auth_failed", seconds=0, evidence={"code": 535})
    for error, outcome in ((Retryable("busy"), "retry"), (asked_nobody, "snoozed"), (refused, "snoozed")):
        (run,) = house.claim(run_id)
        with house.database.transaction() as session:
            runs.retry(session, run, error, outcome=outcome, delay_seconds=0)
    (run,) = house.claim(run_id)
    assert (run.attempt, run.snoozes, run.number) == (4, 1, 3)
    with house.database.transaction() as session:
        run.settle(session)
    with house.database.snapshot() as session:
        history = session.execute(
            select(attempts.c.number, attempts.c.outcome)
            .where(attempts.c.run_id == run_id)
            .order_by(attempts.c.number)
        ).all()
    assert history == [(1, "retry"), (2, "snoozed"), (3, "success")]


def test_waiting_run_is_ended_by_whoever_wakes_it(house: House) -> None:
    """The slot is given back; the result and the interactive client's answer come from the waker."""
    interactive, bulk = house.promise(), house.promise(priority=BULK)
    for run_id in (interactive, bulk):
        (run,) = house.claim(run_id)
        with house.database.transaction() as session:
            run.wait(session, "log")
    with house.database.snapshot() as session:
        found = status.status_of(session, interactive)
        assert found is not None
        assert (found.state, found.waiting_for) == (STARTED, "log")
    house.bell.shown.clear()
    with house.database.transaction() as session:
        woken = runs.wake(session, {interactive: {"n": 1}, bulk: None, "unknown": 3})
        assert woken == {interactive, bulk}
        assert runs.wake(session, {interactive: {"n": 2}}) == set()
        assert runs.wake(session, {}) == set()
    row = house.one(interactive)
    assert (row.state, row.result, row.waiting_for, row.finished_at) == (
        SUCCESS,
        {"n": 1},
        None,
        house.time(),
    )
    assert [(one.run_id, one.state, one.result) for one in house.bell.shown] == [
        (interactive, SUCCESS, {"n": 1})
    ]


def test_run_is_cancelled_with_its_burial_when_it_has_not_begun_or_waits(house: House) -> None:
    """PENDING, RETRY and WAITING end as REVOKED, and the product hears of it in the same commit."""
    pending, retrying, waiting = house.promise(), house.promise(), house.promise()
    (run,) = house.claim(retrying)
    retry(house, run, seconds=100)
    (run,) = house.claim(waiting)
    with house.database.transaction() as session:
        run.wait(session, "log")
    buried: list[tuple[str, str, str]] = []

    def bury(_: Session, run: Run, error: Permanent) -> None:
        buried.append((run.id, error.code, run.task))

    with house.database.transaction() as session:
        for run_id in (pending, retrying, waiting):
            assert runs.cancel(session, run_id, lambda _: bury)
            assert not runs.cancel(session, run_id, lambda _: bury)
    assert buried == [(run_id, "cancelled", "fast.do") for run_id in (pending, retrying, waiting)]
    for run_id in (pending, retrying, waiting):
        row = house.one(run_id)
        assert (row.state, row.error_code, row.waiting_for) == (REVOKED, "cancelled", None)
        assert house.claim(run_id) == []


def test_run_is_not_cancelled_when_it_has_begun_or_ended(house: House) -> None:
    """Its effect may be out already, and it records it."""
    run_id = house.promise()
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        assert not runs.cancel(session, run_id)
    with house.database.transaction() as session:
        run.settle(session)
    with house.database.transaction() as session:
        assert not runs.cancel(session, run_id)
        assert not runs.cancel(session, "unknown")
    assert house.state(run_id) == SUCCESS


def test_nothing_is_cancelled_when_the_burial_raises(house: House) -> None:
    """What the burial of a cancelled run raises is the caller's to explain."""
    run_id = house.promise()

    def bury(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), house.database.transaction() as session:
        runs.cancel(session, run_id, lambda _: bury)
    assert house.state(run_id) == PENDING


def test_bundle_takes_only_fresh_runs_when_it_is_claimed(house: House) -> None:
    """A troublesome run is always executed alone, and each id once."""
    fresh, tried, other = (house.promise(priority=BULK) for _ in range(3))
    (run,) = house.claim(tried)
    retry(house, run, seconds=0)
    claimed = house.claim(other, tried, fresh, fresh)
    assert [run.id for run in claimed] == [other, fresh]
    assert house.one(other).started_at == house.time()
    assert house.one(fresh).started_at is None


def test_next_of_a_bundle_is_marked_as_begun_when_one_is_settled(house: House) -> None:
    """Of a bundle only the run that had begun is charged when the process dies."""
    first, second = (house.promise(priority=BULK) for _ in range(2))
    claimed = house.claim(first, second)
    house.time.move(3)
    with house.database.transaction() as session:
        claimed[0].settle(session)
    assert house.one(second).started_at == house.time()
    assert house.bell.shown == []


def test_rest_of_a_bundle_comes_back_uncharged_when_it_is_given_back(house: House) -> None:
    """What had not begun spends nothing, keeps its age, and rings alone."""
    ids = [house.promise(priority=BULK) for _ in range(3)]
    claimed = house.claim(*ids)
    with house.database.transaction() as session:
        runs.give_back(session, claimed[1:])
    for run_id in ids[1:]:
        row = house.one(run_id)
        assert (row.state, row.spent, row.attempt, row.started_at) == (PENDING, 0, 1, None)
        assert row.due_at == row.created_at
        assert (house.outcomes(run_id), row.snoozes) == ([], 1)


def test_unclaimed_runs_of_a_destination_move_at_once_when_deferred(house: House) -> None:
    """100,000 mails behind a dead relay cost one statement, and no attempt is written."""
    waiting = [house.promise(bundle_key="relay", priority=BULK) for _ in range(3)]
    started, elsewhere = house.promise(bundle_key="relay"), house.promise(bundle_key="other")
    house.claim(started)
    late = house.promise(bundle_key="relay", due_at=house.time() + timedelta(hours=2))
    until = house.time() + timedelta(hours=1)
    with house.database.transaction() as session:
        assert destinations.defer(session, "relay", until, "relay_down") == 3
    assert {house.one(run_id).due_at for run_id in waiting} == {until}
    assert house.one(late).due_at == house.time() + timedelta(hours=2)
    assert house.one(elsewhere).due_at == house.time()
    assert house.state(started) == STARTED
    assert house.outcomes(waiting[0]) == []
    assert house.claim(*waiting) == []


def test_snooze_is_not_shortened_when_its_destination_is_deferred_to_earlier(house: House) -> None:
    """A breaker's time and a run's own snooze do not undo each other: the later one counts."""
    run_id = house.promise(bundle_key="relay")
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        assert destinations.defer(session, "relay", house.time() + timedelta(seconds=30), "relay_down") == 0
        runs.retry(session, run, Snooze("x", seconds=90), outcome="snoozed", delay_seconds=90)
    with house.database.transaction() as session:
        assert destinations.defer(session, "relay", house.time() + timedelta(seconds=60), "relay_down") == 0
        assert destinations.defer(session, "relay", house.time() + timedelta(seconds=120), "relay_down") == 1
    row = house.one(run_id)
    assert (row.due_at, row.spent) == (house.time() + timedelta(seconds=120), 0)


@pytest.mark.parametrize("how", ["retry", "snoozed", "give_back"])
def test_run_is_merged_into_its_successor_when_it_would_be_due_again(house: House, how: str) -> None:
    """Two waiting runs of one coalescing key would break its index; the successor does the work."""
    first = house.promise(coalesce="log", priority=BULK)
    (run,) = house.claim(first)
    second = house.promise(coalesce="log", priority=BULK)
    if how == "give_back":
        with house.database.transaction() as session:
            runs.give_back(session, [run])
    else:
        retry(house, run, seconds=5, outcome=how)
    row = house.one(first)
    assert (row.state, row.result, row.finished_at) == (SUCCESS, {"merged_into": second}, house.time())
    assert len(house.outcomes(first)) == row.attempt - row.snoozes
    assert house.state(second) == PENDING
    assert run.outcome == SUCCESS


def test_explanation_is_cut_to_what_the_columns_hold(house: House) -> None:
    """A run must not be lost because its error cannot be stored: too long, or with a NUL."""
    run_id = house.promise()
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        runs.park(session, run, Permanent("c" * 100, "a\x00" + "b" * 1000))
    row = house.one(run_id)
    assert (row.state, row.error_code, row.error_detail) == (FAILURE, "c" * 60, "a" + "b" * 499)
    assert house.state(run_id) != WAITING
