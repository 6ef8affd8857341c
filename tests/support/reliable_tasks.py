# SPDX-License-Identifier: Apache-2.0
"""Tasks whose effects are lines in a file, for tests with real workers; `fork.*` and `wait.*`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

from conferral.reliable.app import bind, make_celery
from conferral.reliable.backoff import RetryPolicy
from conferral.reliable.bell import Bell
from conferral.reliable.context import Context
from conferral.reliable.errors import Retryable
from conferral.reliable.promises import BULK, promise
from conferral.reliable.routing import Pool, Routing
from conferral.reliable.runs import Run, wake
from conferral.reliable.task import Task, declared_in, task
from conferral.store.engine import Database

FOLDER_VARIABLE = "RELIABLE_TEST_FOLDER"
POLICY = RetryPolicy((0.2, 0.4, 0.8, 1.0))
databases: list[Database] = []  # of this process, so that a task can wake another


def pools(hard_limit_seconds: int | None = None) -> tuple[Pool, ...]:
    """Return one pool of each kind."""
    return (
        Pool("fork", "fork", "prefork", 2, hard_limit_seconds),
        Pool("wait", "wait", "threads", 4),
    )


def routing(hard_limit_seconds: int | None = None) -> Routing:
    """Return the routes of the tasks below."""
    return Routing(routes=(("fork.*", "fork"), ("wait.*", "wait")), pools=pools(hard_limit_seconds))


def effect(run: Run, word: str) -> None:
    """Leave one line: `<run> <word> <attempt> <pid>`; one write, so lines never mix."""
    path = Path(os.environ[FOLDER_VARIABLE]) / "effects"
    with path.open("ab", buffering=0) as file:
        file.write(f"{run.id} {word} {run.attempt} {os.getpid()}\n".encode())


def mark(run: Run, word: str) -> dict[str, str]:
    """Leave a line."""
    effect(run, word)
    return {"marked": word}


def slow(run: Run, word: str, seconds: str) -> str:
    """Leave a line, take long, leave another."""
    effect(run, f"{word}-begun")
    time.sleep(float(seconds))
    effect(run, f"{word}-done")
    return word


def slow_once(run: Run, word: str, seconds: str) -> str:
    """Take long at the first attempt only."""
    return slow(run, word, seconds if run.attempt == 1 else "0")


def fail_once(run: Run, word: str) -> str:
    """Fail at the first attempt."""
    effect(run, word)
    if run.attempt == 1:
        raise Retryable("busy")
    return word


def leave(run: Run, word: str) -> None:
    """End the process, as a native library does that calls abort()."""
    effect(run, word)
    os._exit(3)


def wait(run: Run, word: str) -> None:
    """Wait for somebody."""
    effect(run, word)
    with databases[-1].transaction() as session:
        run.wait(session, "somebody")


def wake_up(run: Run, sleeper: str) -> None:
    """Wake another run."""
    with databases[-1].transaction() as session:
        wake(session, {sleeper: {"woken_by": run.id}})
        run.settle(session)


def tick(run: Run) -> None:
    """Be fired by Beat."""
    effect(run, "tick")


def nothing(run: Run) -> None:
    """Do nothing."""


def flow(run: Run, left: str = "2") -> None:
    """Promise the next step in the commit that ends this one; the last step does nothing."""
    steps = int(left) - 1
    with databases[-1].transaction() as session:
        if steps:
            promise(session, "wait.flow", [str(steps)], priority=BULK)
        else:
            promise(session, "wait.nothing", [], priority=BULK)
        run.settle(session)


def _both(name: str, function: Callable[..., Any], **options: Any) -> tuple[Task, Task]:
    return tuple(task(f"{kind}.{name}", policy=POLICY, **options)(function) for kind in ("fork", "wait"))  # type: ignore[return-value]


fork_mark, wait_mark = _both("mark", mark, bundle=8)
fork_slow, wait_slow = _both("slow", slow)
fork_slow_once, wait_slow_once = _both("slow_once", slow_once)
fork_fail_once, wait_fail_once = _both("fail_once", fail_once)
fork_leave, _ = _both("leave", leave)
fork_wait, wait_wait = _both("wait", wait)
fork_wake, wait_wake = _both("wake", wake_up)
fork_tick, wait_tick = _both("tick", tick)
fork_nothing, wait_nothing = _both("nothing", nothing, bundle=32)
fork_flow, wait_flow = _both("flow", flow, bundle=32)

TASKS = declared_in([sys.modules[__name__]])


def build(
    database_url: str,
    redis_url: str,
    *,
    schedule: dict[str, Any] | None = None,
    hard_limit_seconds: int | None = None,
    socket_seconds: float = 5.0,
    **figures: float,
) -> tuple[Celery, Callable[[], Context]]:
    """Return the application with everything bound, and what opens this process's database."""
    routes = routing(hard_limit_seconds)
    app = make_celery(
        "reliable_test",
        broker_url=f"{redis_url}/0",
        result_url=f"{redis_url}/1",
        routing=routes,
        schedule=schedule,
        socket_seconds=socket_seconds,
    )

    def make_context() -> Context:
        database = Database(database_url, routing=routes, bell=Bell(app), pool_size=6)
        databases.append(database)
        return Context(
            transaction=database.transaction,
            snapshot=database.snapshot,
            now=database.now,
            routing=routes,
            **figures,  # type: ignore[arg-type]
        )

    bind(app, TASKS, routes, make_context)
    return app, make_context
