# SPDX-License-Identifier: Apache-2.0
"""The test double that users get: what `run_inline`, `crash_at` and `FrozenTime` promise."""

from __future__ import annotations

import pytest

from conferral.reliable import pauses
from conferral.reliable.backoff import RetryPolicy
from conferral.reliable.errors import Retryable
from conferral.reliable.promises import BULK, promise
from conferral.reliable.routing import Routing
from conferral.reliable.runs import Run
from conferral.reliable.task import Task
from conferral.reliable.testing import FrozenTime, crash_at, memory_context, run_inline

ROUTING = Routing((("a.*", "a"), ("b.*", "b")), ())


def test_chain_of_promises_is_followed_to_its_end() -> None:
    """A run that promises the next in its settling commit: everything is executed, in order."""
    time = FrozenTime()
    context = memory_context(ROUTING, time)

    def first(run: Run, word: str) -> None:
        with context.transaction() as session:
            promise(session, "b.second", [word], subject=run.id)
            run.settle(session)

    tasks = [Task("a.first", first), Task("b.second", lambda _, word: word.upper())]
    with context.transaction() as session:
        promise(session, "a.first", ["x"])
    assert [(one.task, one.outcome, one.result) for one in run_inline(context, tasks)] == [
        ("a.first", "SUCCESS", None),
        ("b.second", "SUCCESS", "X"),
    ]
    assert run_inline(context, tasks) == []


def test_time_is_moved_to_what_is_due_next_when_patience_allows() -> None:
    """A whole retry schedule in a millisecond; what lies beyond the patience is left alone."""
    time = FrozenTime()
    context = memory_context(ROUTING, time)
    tries: list[float] = []
    began = time()

    def fail(*_: object) -> None:
        tries.append((time() - began).total_seconds())
        raise Retryable("busy")

    with context.transaction() as session:
        promise(session, "a.fail", [])
    declared = Task("a.fail", fail, policy=RetryPolicy((10.0, 100.0, 1000.0), growing=True))
    executed = run_inline(context, {"a.fail": declared}, time=time, patience_seconds=110)
    assert [one.outcome for one in executed] == ["RETRY"] * 3
    assert tries == sorted(tries)
    assert 10 <= tries[2] - tries[1] <= 100
    executed = run_inline(context, {"a.fail": declared}, time=time, patience_seconds=1000)
    assert [one.outcome for one in executed] == ["FAILURE"]


def test_args_go_through_json_and_bulk_through_bundles() -> None:
    """What Redis could not carry is found by a unit test."""
    context = memory_context(ROUTING, FrozenTime())
    seen: list[object] = []
    with context.transaction() as session:
        for number in range(5):
            promise(session, "a.do", [str(number)], priority=BULK)
    executed = run_inline(context, [Task("a.do", lambda run, _: seen.append(run.successor), bundle=3)])
    assert len(executed) == 5
    assert [successor is None for successor in seen] == [False, False, True, False, True]


def test_others_tasks_and_paused_queues_are_left_alone() -> None:
    """A test of one task does not need them all."""
    context = memory_context(ROUTING, FrozenTime())
    with context.transaction() as session:
        promise(session, "a.other", [])
        promise(session, "b.do", [])
        pauses.pause(session, "queue", "b")
    assert run_inline(context, [Task("b.do", lambda _: None)]) == []
    with context.transaction() as session:
        pauses.resume(session, "queue", "b")
    assert len(run_inline(context, [Task("b.do", lambda _: None)])) == 1


def test_loop_of_promises_is_stopped_with_its_reason() -> None:
    """A task that promises itself for ever fails the test instead of hanging it."""
    context = memory_context(ROUTING, FrozenTime())

    def again(run: Run) -> None:
        with context.transaction() as session:
            promise(session, "a.again", [])
            run.settle(session)

    with context.transaction() as session:
        promise(session, "a.again", [])
    with pytest.raises(RuntimeError, match="more than 20 messages"):
        run_inline(context, [Task("a.again", again)], max_messages=20)


def test_crash_leaves_what_a_killed_process_leaves() -> None:
    """Rolled back, unrecorded, leased; three of them are poison."""
    time = FrozenTime()
    context = memory_context(ROUTING, time)
    buried: list[str] = []
    declared = Task("a.do", lambda _: None, on_dead=lambda _, __, error: buried.append(error.code))
    with context.transaction() as session:
        promise(session, "a.do", [])
    for _ in range(3):
        with crash_at("claimed", task="a.do") as crash:
            run_inline(context, [declared])
        assert crash.happened
        time.move(31)
    assert run_inline(context, [declared]) == []
    assert buried == ["poison"]


def test_test_fails_when_its_crash_point_was_never_passed() -> None:
    """A crash that did not happen proves nothing."""
    with pytest.raises(AssertionError, match="was not passed 2 times"), crash_at("smtp.dot", nth=2):
        pass
