# SPDX-License-Identifier: Apache-2.0
"""Test durable tasks in one process, without a broker and without waiting; for us and for users.

The rows, the claim, the fence, retries, dead letters and bundles are the real ones; only the
bell is replaced, and what it would carry goes through kombu's JSON all the same. This module
must never be imported by a program that serves anybody.

>>> from conferral.reliable.errors import Retryable
>>> from conferral.reliable.promises import promise
>>> from conferral.reliable.routing import Routing
>>> from conferral.reliable.task import task
>>> answers = [Retryable("peer_busy", "try later"), None]
>>> @task("example.greet")
... def greet(run, whom):
...     answer = answers.pop(0)
...     if answer is not None:
...         raise answer
...     return f"greeted {whom}"
>>> time = FrozenTime()
>>> context = memory_context(Routing(routes=(("example.*", "default"),), pools=()), time)

Nothing waits: a retry is due when the clock has been moved.

>>> with context.transaction() as session:
...     run_id = promise(session, "example.greet", ["per_1"])
>>> [(one.attempt, one.outcome) for one in run_inline(context, [greet])]
[(1, 'RETRY')]
>>> time.move(3600)
>>> [(one.attempt, one.outcome, one.result) for one in run_inline(context, [greet])]
[(2, 'SUCCESS', 'greeted per_1')]

A crash leaves what it leaves; the lease runs out and the run is executed again.

>>> answers = [None, None]
>>> with context.transaction() as session:
...     run_id = promise(session, "example.greet", ["per_2"])
>>> with crash_at("settle.before_commit"):
...     run_inline(context, [greet])
>>> time.move(31)
>>> [(one.attempt, one.outcome) for one in run_inline(context, [greet])]
[(2, 'SUCCESS')]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kombu.utils import json
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from conferral.reliable import crash_points, pauses, runs
from conferral.reliable.context import Context
from conferral.reliable.dispatcher import bundles_of
from conferral.reliable.holding import Holding
from conferral.reliable.outbox import Terms, session_info
from conferral.reliable.rescue import rescue_expired
from conferral.reliable.routing import Routing
from conferral.reliable.runs import Run
from conferral.reliable.tables import CLAIMABLE, RUNG, metadata
from conferral.reliable.tables import runs as runs_table
from conferral.reliable.task import Executor, Task, burials
from conferral.reliable.urgency import Queue

ROOM = 64  # runs chosen at once, as by a dispatcher of a small worker
MAX_MESSAGES = 10_000  # beyond it a test has a loop: a task that promises itself for ever


class FrozenTime:
    """A clock that stands until it is moved; call it for the time.

    >>> time = FrozenTime(datetime(2026, 1, 1, tzinfo=UTC))
    >>> time.move(90)
    >>> time().isoformat()
    '2026-01-01T00:01:30+00:00'
    """

    def __init__(self, at: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)) -> None:
        self._at = at

    def __call__(self) -> datetime:
        """Return the time, aware UTC."""
        return self._at

    def move(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self._at += timedelta(seconds=seconds)

    def move_to(self, at: datetime) -> None:
        """Jump to a time."""
        self._at = at


@dataclass(frozen=True, slots=True)
class Executed:
    """One attempt that was made: `outcome` is the state it moved the run to, or FENCED."""

    run_id: str
    task: str
    attempt: int
    outcome: str | None
    result: Any


def run_inline(
    context: Context,
    tasks: Mapping[str, Task] | Iterable[Task],
    *,
    time: FrozenTime | None = None,
    patience_seconds: float = 0.0,
    max_messages: int = MAX_MESSAGES,
) -> list[Executed]:
    """Execute everything that is due, in this thread, until nothing is; return the attempts made.

    Args:
        context: the database and the clock; a `FrozenTime` where retries are to be tested.
        tasks: the declared tasks, by name or as they are; runs of others are left alone.
        time: the context's clock; with it, time is moved on to whatever is due next …
        patience_seconds: … as long as that is at most so far from now.
        max_messages: a loop of promises is stopped here.

    Raises:
        RuntimeError: more than `max_messages` messages were delivered.
    """
    declared = dict(tasks) if isinstance(tasks, Mapping) else {one.name: one for one in tasks}
    executor = Executor(context, declared, Holding(context))
    last = context.now() + timedelta(seconds=patience_seconds)
    executed: list[Executed] = []
    delivered = 0
    while True:
        messages = _due_messages(context, declared)
        for message in messages:
            delivered += 1
            if delivered > max_messages:
                raise RuntimeError(f"more than {max_messages} messages: does a task promise itself for ever?")
            name, run_ids = json.loads(message)
            executed += [_executed(run) for run in executor.execute(name, run_ids)]
        if not messages and not (time is not None and _moved(context, time, last)):
            return executed


@dataclass(slots=True)
class Crash:
    """What `crash_at` saw."""

    happened: bool = False


class SimulatedCrash(BaseException):
    """The process would have been killed here; no handler of errors may see it."""


@contextmanager
def crash_at(point: str, *, nth: int = 1, task: str | None = None) -> Iterator[Crash]:
    """Stop what runs inside as if the process had died at a crash point, the nth time it passes.

    Open transactions are rolled back, as the database would; nothing else is recorded.

    Raises:
        AssertionError: the point was never passed, so nothing was tested.

    >>> with crash_at("example.point") as crash:
    ...     crash_points.crash_point("example.point")
    ...     print("never printed")
    >>> crash.happened
    True
    """
    crash = Crash()

    def die() -> None:
        crash.happened = True
        raise SimulatedCrash(point)

    crash_points.arm(f"{point}:{nth}" + (f",{task}" if task else ""), die)
    try:
        yield crash
    except SimulatedCrash:
        pass
    finally:
        crash_points.arm(None)
    if not crash.happened:
        raise AssertionError(f"crash point {point} was not passed {nth} times")


def memory_context(routing: Routing, time: FrozenTime, **options: Any) -> Context:
    """Return a context over a fresh SQLite database in memory; `options` are `Context`'s.

    One connection, so one thread; what threads and processes do to each other is tested on
    a real database.
    """
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None, "check_same_thread": False}
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    metadata.create_all(engine)
    info = session_info(Terms(routing, time))

    @contextmanager
    def transaction() -> Iterator[Session]:
        with Session(engine, info=dict(info), expire_on_commit=False) as session, session.begin():
            yield session

    return Context(
        transaction=transaction,
        snapshot=lambda: _snapshot(engine, info),
        now=time,
        routing=routing,
        **{"record_pauses_seconds": (0.0,), **options},
    )


@contextmanager
def _snapshot(engine: Engine, info: Mapping[Any, Any]) -> Iterator[Session]:
    with Session(engine, info=dict(info), expire_on_commit=False) as session:
        yield session


def _due_messages(context: Context, tasks: Mapping[str, Task]) -> list[str]:
    """Rescue, choose and bundle as the dispatcher does; return the messages as Redis would hold them."""
    with context.transaction() as session:
        rescue_expired(session, burials(tasks))
        for group in pauses.groups(session):
            while pauses.move_group(session, group):
                pass
        runs.unring(session, list(session.execute(select(runs_table.c.id).where(RUNG)).scalars()))
    messages: list[str] = []
    with context.snapshot() as session:
        paused = pauses.paused(session)
        for queue in context.routing.queues:
            if queue not in paused.queues:
                waiting = Queue(session, queue, context.now(), sorted(paused.groups))
                bundles = bundles_of(tasks, queue, waiting.most_urgent(ROOM))
                messages += [
                    json.dumps([one.task, list(one.run_ids)]) for one in bundles if one.task in tasks
                ]
    return messages


def _executed(run: Run) -> Executed:
    return Executed(run.id, run.task, run.attempt, run.outcome, run.result)


def _moved(context: Context, time: FrozenTime, last: datetime) -> bool:
    """Move time to whatever is due next, if that is not later than `last`."""
    with context.snapshot() as session:
        upcoming = session.execute(
            select(func.min(runs_table.c.due_at)).where(CLAIMABLE, runs_table.c.due_at > context.now())
        ).scalar_one()
    if upcoming is None or upcoming > last:
        return False
    time.move_to(upcoming)
    return True
