# SPDX-License-Identifier: Apache-2.0
"""Claim, call, settle; or retry, or park: what the executor does with whatever a task does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy.orm import Session

from conferral.reliable import backoff, pauses, rescue
from conferral.reliable.backoff import RetryPolicy
from conferral.reliable.errors import Ambiguous, Permanent, Retryable, Snooze
from conferral.reliable.runs import Run
from conferral.reliable.tables import FAILURE, RETRY, STARTED, SUCCESS
from conferral.reliable.task import FENCED, Task
from support.reliable_database import House, house_on

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


def test_run_succeeds_with_what_the_function_returns(house: House) -> None:
    """A task that does not settle is settled with its result."""
    run_id = house.promise(args=("x", "y"))
    (run,) = execute(house, lambda _, x, y: {"got": [x, y]}, run_id)
    assert run.outcome == SUCCESS
    assert house.one(run_id).result == {"got": ["x", "y"]}
    assert execute(house, lambda *_: None, run_id) == []


def test_own_settling_is_kept_when_the_function_returns_something_else(house: House) -> None:
    """The commit that records the effect is the truth."""
    run_id = house.promise()

    def function(run: Run, _: str) -> str:
        with house.database.transaction() as session:
            run.settle(session, "recorded")
        return "returned"

    (run,) = execute(house, function, run_id)
    assert (run.outcome, house.one(run_id).result) == (SUCCESS, "recorded")
    assert house.outcomes(run_id) == ["success"]


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (Retryable("busy"), "retry", "busy"),
        (Ambiguous("answer_lost"), "ambiguous", "answer_lost"),
        (ZeroDivisionError("a secret"), "retry", "internal"),
    ],
)
def test_run_is_tried_again_when_it_did_not_work(
    house: House, error: Exception, outcome: str, code: str
) -> None:
    """The class decides; a text that may quote a secret is not kept."""
    run_id = house.promise()
    (run,) = execute(house, raising(error), run_id)
    row = house.one(run_id)
    assert (run.outcome, row.state, row.error_code, row.spent) == (RETRY, RETRY, code, 1)
    assert "secret" not in row.error_detail
    assert 0 <= (row.due_at - house.time()).total_seconds() <= POLICY.ceilings_seconds[0]
    assert house.outcomes(run_id) == [outcome]


def test_delays_differ_grow_and_are_capped_when_attempts_fail(house: House) -> None:
    """Full jitter below a growing ceiling: forty runs that failed together do not return together."""
    policy = RetryPolicy((10.0, 40.0, 40.0))
    delays: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for seed in range(12):
        run_id = house.promise()
        for attempt in (1, 2, 3):
            execute(
                house, raising(Retryable("busy")), run_id, policy=policy, random=Random(seed * 7 + attempt)
            )
            delays[attempt].append((house.one(run_id).due_at - house.time()).total_seconds())
            house.time.move(41)
    assert all(len(set(drawn)) == len(drawn) for drawn in delays.values())
    assert max(delays[1]) <= 10 < max(delays[2]) <= 40
    assert max(delays[3]) <= 40


def test_run_is_parked_when_its_attempts_are_used_up(house: House) -> None:
    """Two ceilings allow three attempts; snoozes spend none of them."""
    run_id = house.promise()
    buried: list[str] = []

    def bury(_: Session, run: Run, error: Permanent) -> None:
        buried.append(f"{run.id} {error.code}")

    for error in (Retryable("busy"), Snooze(seconds=1), Retryable("busy"), Snooze(seconds=1)):
        execute(house, raising(error), run_id, on_dead=bury)
        assert house.state(run_id) == RETRY
        house.time.move(100)
    (run,) = execute(house, raising(Retryable("busy")), run_id, on_dead=bury)
    row = house.one(run_id)
    assert (run.outcome, row.state, row.error_code, row.attempt, row.spent) == (
        FAILURE,
        FAILURE,
        "busy",
        5,
        3,
    )
    assert buried == [f"{run_id} busy"]
    assert house.outcomes(run_id) == ["retry", "retry", "failure"]


def test_nothing_is_tried_again_when_the_refusal_is_permanent(house: House) -> None:
    """A 550 is not asked twice."""
    run_id = house.promise()
    execute(house, raising(Permanent("mail_refused", evidence={"reply": 550})), run_id)
    assert house.state(run_id) == FAILURE
    assert house.claim(run_id) == []


def test_peer_is_obeyed_when_it_asks_for_a_pause(house: House) -> None:
    """Retry-After is a floor, capped at a day, and a little more: what was sent away together is parted."""
    for asked, waited in ((600.0, 600.0), (10**6, backoff.MAX_RETRY_AFTER_SECONDS)):
        run_id = house.promise()
        execute(house, raising(Retryable("throttled", retry_after_seconds=asked)), run_id)
        found = (house.one(run_id).due_at - house.time()).total_seconds()
        assert waited <= found <= waited * (1 + backoff.SPREAD)


def test_burial_and_parking_are_one_commit(house: House) -> None:
    """What `on_dead` writes stands with the FAILURE or not at all."""
    run_id, other = house.promise(), []

    def bury(session: Session, _: Run, __: Permanent) -> None:
        pauses.pause(session, "group", "written by the burial")
        with house.database.snapshot() as outside:
            other.append((house.state(run_id), pauses.paused(outside).groups))

    execute(house, raising(Permanent("bad")), run_id, on_dead=bury)
    assert other == [(STARTED, frozenset())]
    with house.database.snapshot() as session:
        assert pauses.paused(session).groups == {"written by the burial"}


def test_run_is_parked_without_its_burial_when_that_keeps_raising(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """It is neither lost nor tried for ever, and the log says loudly what is missing."""
    run_id = house.promise()
    calls: list[int] = []

    def bury(session: Session, *_: Any) -> None:
        calls.append(1)
        pauses.pause(session, "group", "half a burial")
        raise ZeroDivisionError

    (run,) = execute(house, raising(Permanent("bad")), run_id, on_dead=bury)
    assert (run.outcome, house.state(run_id), house.one(run_id).error_code) == (FAILURE, FAILURE, "bad")
    assert len(calls) == 2
    assert any(record.levelname == "ERROR" and record.run_id == run_id for record in caplog.records)  # type: ignore[attr-defined]
    with house.database.snapshot() as session:
        assert pauses.paused(session).groups == frozenset()


def test_burial_happens_when_it_raises_only_once(house: House) -> None:
    """A lock time-out in a burial costs a moment, not the burial."""
    run_id, raises, buried = house.promise(), [ZeroDivisionError()], []

    def bury(*_: Any) -> None:
        if raises:
            raise raises.pop()
        buried.append(1)

    execute(house, raising(Permanent("bad")), run_id, on_dead=bury)
    assert (buried, house.state(run_id)) == ([1], FAILURE)


def test_failure_is_recorded_when_its_evidence_cannot_be_stored(house: House) -> None:
    """Evidence that is no JSON is dropped, not the run."""
    run_id = house.promise()
    execute(house, raising(Permanent("bad", "why", evidence={"bytes": b"\x00"})), run_id)
    assert (house.state(run_id), house.one(run_id).error_detail) == (FAILURE, "why")
    run_id = house.promise()
    execute(house, lambda *_: object(), run_id)
    assert (house.state(run_id), house.one(run_id).error_code) == (RETRY, "internal")


def test_late_worker_is_fenced_and_shown_when_it_was_rescued(house: House) -> None:
    """The zombie changes nothing, and the history says that it came back."""
    run_id = house.promise()

    def sleep_past_the_lease(run: Run, _: str) -> str:
        house.time.move(31)
        with house.database.transaction() as session:
            rescue.rescue_expired(session, lambda _: None)
        (second,) = house.claim(run.id, owner="another")
        with house.database.transaction() as session:
            second.settle(session, "second")
        return "zombie"

    (run,) = execute(house, sleep_past_the_lease, run_id)
    assert run.outcome == FENCED
    assert house.one(run_id).result == "second"
    assert house.outcomes(run_id) == ["fenced", "success"]


def test_abandoned_run_comes_back_when_its_lease_ends(house: House) -> None:
    """A task may behave as if it had died; nothing is recorded then."""
    run_id = house.promise()
    (run,) = execute(house, lambda run, _: run.abandon(), run_id)
    assert (run.outcome, house.state(run_id), house.outcomes(run_id)) == (FENCED, STARTED, [])


def test_effect_is_not_begun_when_the_lease_is_about_to_end(house: House) -> None:
    """The check before an effect asks memory only and makes the run due again."""
    run_id = house.promise()

    def function(run: Run, _: str) -> None:
        run.check_lease(29)
        run.check_lease(31)

    execute(house, function, run_id)
    assert house.state(run_id) == RETRY
    Run.check_lease(house.claim(house.promise())[0], 10**9)
