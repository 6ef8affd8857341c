# SPDX-License-Identifier: Apache-2.0
"""Backoff, routing, ids, owners and crash points: the parts of the layer without I/O."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import uuid
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import conferral.reliable
from conferral.reliable import crash_points, ids
from conferral.reliable.backoff import (
    DEFAULT,
    MAX_RETRY_AFTER_SECONDS,
    NEVER_RETRY,
    SPREAD,
    RetryPolicy,
    delay,
)
from conferral.reliable.errors import Ambiguous, Permanent, Retryable, RoutingError, Snooze
from conferral.reliable.routing import Pool, Routing, check
from conferral.reliable.task import Task, burials, declared_in, task

MODULES = [f"conferral.reliable.{found.name}" for found in pkgutil.iter_modules(conferral.reliable.__path__)]
seconds = st.floats(min_value=0, max_value=10**6)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    """What the documentation shows is what happens."""
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_modules_that_users_read_first_have_examples() -> None:
    """A module that lost its examples would pass the test above."""
    with_examples = {name for name in MODULES if doctest.testmod(importlib.import_module(name)).attempted > 0}
    assert {
        f"conferral.reliable.{name}" for name in ("backoff", "ids", "owner", "routing", "task", "testing")
    } <= (with_examples)


@given(st.lists(seconds, min_size=1, max_size=9), st.integers(0, 10**6), st.booleans(), seconds)
def test_delay_is_drawn_below_its_ceiling(
    ceilings: list[float], seed: int, growing: bool, asked: float
) -> None:
    """Full jitter, or between the last ceiling and this one; a peer's wish is a floor, capped at a day."""
    policy = RetryPolicy(tuple(sorted(ceilings)), growing=growing)
    for spent in range(1, policy.max_attempts):
        drawn = delay(policy, spent, Random(seed))
        assert drawn is not None
        floor = policy.ceilings_seconds[spent - 2] if growing and spent > 1 else 0.0
        assert floor <= drawn <= policy.ceilings_seconds[spent - 1]
        told = delay(policy, spent, Random(seed), retry_after_seconds=asked)
        floor = min(asked, MAX_RETRY_AFTER_SECONDS)
        assert told is not None
        assert told == drawn if drawn >= floor else floor <= told <= floor * (1 + SPREAD)
    assert delay(policy, policy.max_attempts, Random(seed)) is None


def test_delays_differ_when_many_fail_together() -> None:
    """Forty runs that failed together do not return together."""
    rng = Random(1)
    assert len({delay(DEFAULT, 3, rng) for _ in range(40)}) == 40
    assert delay(NEVER_RETRY, 1, rng) is None
    scaled = delay(RetryPolicy((10.0,), floor_seconds=9.0), 1, rng, scale=0.5)
    assert scaled is not None
    assert 4.5 <= scaled <= 5.0


def test_delays_differ_when_many_wait_for_the_same_floor() -> None:
    """Forty mails that were greylisted together, or throttled by one endpoint, do not return together."""
    rng = Random(1)
    asked = {delay(DEFAULT, 1, rng, retry_after_seconds=60.0) for _ in range(40)}
    assert len(asked) == 40
    assert len({delay(RetryPolicy((5.0,), floor_seconds=60.0), 1, rng) for _ in range(40)}) == 40


ROUTES = (("mail.*", "default"), ("hook.*", "hooks"))
POOLS = (Pool("mail", "default", "threads", 8), Pool("hooks", "hooks", "threads", 8))


def test_check_is_silent_when_everything_is_wired() -> None:
    """Every task has a route, every queue a pool, every schedule entry a task."""
    check(Routing(ROUTES, POOLS), ["mail.send", "hook.post"], {"nightly": "mail.send"})


@pytest.mark.parametrize(
    ("routing", "tasks", "schedule", "said"),
    [
        (Routing(ROUTES, POOLS), ["pdf.render"], {}, "task pdf.render has no route"),
        (Routing(ROUTES, POOLS[:1]), [], {}, "queue hooks has no pool"),
        (Routing(ROUTES[:1], POOLS), [], {}, "pool hooks consumes queue hooks, to which no route leads"),
        (Routing(ROUTES, POOLS), ["mail.send"], {"nightly": "mail.gone"}, "nightly names task mail.gone"),
        (Routing(ROUTES, (*POOLS, POOLS[0])), [], {}, "two pools are named mail"),
        (Routing(ROUTES, POOLS, {"defualt": 1.0}), [], {}, "rate of queue defualt"),
    ],
)
def test_check_names_the_fault_when_work_would_fall_between(
    routing: Routing, tasks: list[str], schedule: dict[str, str], said: str
) -> None:
    """Silence here is a task that is pending for ever."""
    with pytest.raises(RoutingError, match=said):
        check(routing, tasks, schedule)


def test_check_names_all_faults_at_once() -> None:
    """One start tells everything that is wrong."""
    with pytest.raises(RoutingError) as caught:
        check(Routing(ROUTES, ()), ["a.b", "c.d"], {"e": "f"})
    faults = ("task a.b", "task c.d", "queue default", "queue hooks", "schedule entry e")
    assert all(fault in str(caught.value) for fault in faults)


def test_pool_is_found_by_name_or_the_known_ones_are_said() -> None:
    """A typing error in a start command explains itself."""
    routing = Routing(ROUTES, POOLS)
    assert routing.pool("mail").forks is False
    with pytest.raises(RoutingError, match="known pools: mail, hooks"):
        routing.pool("mial")


def test_run_ids_sort_by_time_and_are_version_7() -> None:
    """Indexes grow at one end, and the time can be read back."""
    made = [ids.new_run_id() for _ in range(50)]
    assert {uuid.UUID(one).version for one in made} == {7}
    times = [ids.milliseconds_of(one) for one in made]
    assert times == sorted(times, key=lambda value: value or 0)
    assert ids.milliseconds_of("nonsense") is None
    assert ids.milliseconds_of(str(uuid.uuid4())) is None


def test_error_says_its_meaning_when_no_detail_is_given() -> None:
    """Code, detail and docstring: an operator always reads a sentence."""
    assert str(Retryable()) == "internal: The effect certainly did not happen; the run is tried again later."
    assert (Snooze(seconds=3).code, Snooze(seconds=3).seconds) == ("not_ready", 3)
    assert Permanent("a", "b", evidence={"status": 410}).evidence == {"status": 410}
    assert Ambiguous("x", retry_after_seconds=5).retry_after_seconds == 5


def test_task_is_found_once_by_name_or_refused() -> None:
    """Two functions under one name would make it a matter of luck which one runs."""

    class Module:
        greet = task("greet")(print)
        same = greet

    class Other:
        greet = task("greet")(len)

    assert list(declared_in([Module])) == ["greet"]
    with pytest.raises(ValueError, match="greet is declared twice"):
        declared_in([Module, Other])

    def bury(*_: object) -> None: ...

    assert burials({"a": Task("a", print, on_dead=bury)})("a") is bury
    assert burials({"a": Task("a", print)})("b") is None


def test_crash_point_kills_at_the_nth_passage_of_the_named_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """`<point>[:<nth>][,<task>]`, and nothing else ever dies."""
    killed: list[tuple[int, int]] = []
    passed = 0
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append((pid, passed)))
    crash_points.arm("settle:2,mail.send")
    try:
        for name in (None, "other", "mail.send", "mail.send", "mail.send"):
            passed += 1
            crash_points.current_task.name = name
            crash_points.crash_point("elsewhere")
            crash_points.crash_point("settle")
    finally:
        crash_points.arm(None)
        crash_points.current_task.name = None
    assert killed == [(os.getpid(), 4)]
