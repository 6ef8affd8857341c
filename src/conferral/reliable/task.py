# SPDX-License-Identifier: Apache-2.0
"""How a task is declared and executed: claim, call, settle; or retry, or park.

    @task("tasks.notifications.send", policy=EMAIL, on_dead=give_up)
    def send(run: Run, delivery_id: str) -> None: ...

The function settles its run in the commit that records its effect. If it returns without
having done so, the run is settled here with what it returned.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from conferral.reliable import backoff, metrics, runs
from conferral.reliable.backoff import RetryPolicy
from conferral.reliable.context import Context
from conferral.reliable.crash_points import crash_point, current_task
from conferral.reliable.errors import Ambiguous, LeaseLost, Permanent, Retryable, RunError, Snooze
from conferral.reliable.holding import Holding
from conferral.reliable.outbox import Ring, outbox_of
from conferral.reliable.rescue import OnDead, rescue_gone
from conferral.reliable.runs import Run
from conferral.reliable.tables import RETRY, attempts

log = logging.getLogger(__name__)

MAX_BUNDLE = 32  # runs a message: beyond it the gain is flat and a lost bundle hurts more
# A bundle gives back what it has not begun after this long: below issuance's hard limit of
# 25 s, and short enough that a neighbour's slow effect does not delay the rest for long.
BUNDLE_SECONDS = 10.0

FENCED = "FENCED"


@dataclass(frozen=True, slots=True)
class Task:
    """A declared task.

    Attributes:
        name: what promises, routes and messages call it.
        function: called with the run and its args.
        policy: the attempts it is given.
        on_dead: called in the commit that parks a run: `(session, run, error)`.
        bundle: how many bulk runs may travel in one message.
        stops_at_failure: a bundle's runs share a destination: after one failure the rest
            is given back.
    """

    name: str
    function: Callable[..., Any]
    policy: RetryPolicy = backoff.DEFAULT
    on_dead: OnDead | None = None
    bundle: int = 1
    stops_at_failure: bool = False


def task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Task]:
    """Declare a task; see `Task` for the options.

    >>> @task("example.greet")
    ... def greet(run, whom): ...
    >>> greet.name
    'example.greet'
    """

    def declare(function: Callable[..., Any]) -> Task:
        return Task(name=name, function=function, **options)

    return declare


def declared_in(modules: Iterable[Any]) -> dict[str, Task]:
    """Return the tasks declared in modules by name; a name declared twice is refused."""
    found: dict[str, Task] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Task):
                if value.name in found and found[value.name] is not value:
                    raise ValueError(f"task {value.name} is declared twice")
                found[value.name] = value
    return found


class Executor:
    """Executes runs in one process: threads may share it."""

    def __init__(self, context: Context, tasks: Mapping[str, Task], holding: Holding) -> None:
        self._context = context
        self._tasks = tasks
        self._holding = holding

    def on_dead(self, name: str) -> OnDead | None:
        """Return a task's burial by name."""
        declared = self._tasks.get(name)
        return declared.on_dead if declared else None

    def execute(self, name: str, run_ids: Sequence[str]) -> list[Run]:
        """Claim and execute; return the runs that were ours, each with its outcome."""
        current_task.name = name
        claimed = self._claim(run_ids)
        crash_point("claimed")
        declared = self._tasks[name]
        deadline = time.monotonic() + BUNDLE_SECONDS
        for position, run in enumerate(claimed):
            if position and time.monotonic() > deadline:
                self._give_back(claimed[position:])
                break
            self._execute_one(declared, run)
            if run.outcome == RETRY and declared.stops_at_failure:
                self._give_back(claimed[position + 1 :])
                break
        return claimed

    def _claim(self, run_ids: Sequence[str]) -> list[Run]:
        with self._context.transaction() as session:
            claimed = runs.claim(
                session,
                run_ids,
                owner=self._holding.owner,
                lease_seconds=self._context.lease_seconds,
            )
        self._holding.add(claimed)
        refused = set(run_ids) - {run.id for run in claimed}
        if refused:
            self._rescue(sorted(refused))
        return claimed

    def _rescue(self, run_ids: Sequence[str]) -> None:
        # Refused: done already, held elsewhere, or held by a child of this host that died.
        with self._context.transaction() as session:
            rescued = rescue_gone(session, run_ids, self.on_dead)
            again = [Ring(one.run_id, one.task, one.queue) for one in rescued if one.state == RETRY]
            outbox_of(session).rings.extend(again)
        for one in rescued:
            log.warning("run_rescued", extra={"run_id": one.run_id, "task": one.task, "state": one.state})

    def _execute_one(self, declared: Task, run: Run) -> None:
        began = time.perf_counter()
        try:
            result = declared.function(run, *run.args)
            if run.outcome is None:
                with self._context.transaction() as session:
                    run.settle(session, result)
            crash_point("settle.after_commit")
        except LeaseLost as lost:
            self._fenced(run, lost)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is becomes a row
            run.outcome = None
            self._record_failure(declared, run, error)
        finally:
            self._holding.drop(run.id)
            metrics.observe_run(declared.name, run.outcome or "unknown", time.perf_counter() - began)

    def _record_failure(self, declared: Task, run: Run, raised: Exception) -> None:
        error = raised if isinstance(raised, RunError) else _unexpected(run, raised)
        try:
            with self._context.transaction() as session:
                self._retry_or_park(session, declared, run, error)
        except LeaseLost as lost:
            self._fenced(run, lost)
        except SQLAlchemyError as unrecorded:
            # Nothing can be written now; the lease will run out and the rescuer records it.
            run.outcome = None
            log.warning("failure_not_recorded", extra={"run_id": run.id, "code": type(unrecorded).__name__})

    def _retry_or_park(self, session: Session, declared: Task, run: Run, error: RunError) -> None:
        outcome, seconds = self._next(declared, run, error)
        if seconds is None:
            runs.park(session, run, error)
            if declared.on_dead is not None:
                declared.on_dead(session, run, _final(error))
        else:
            runs.retry(session, run, error, outcome=outcome, delay_seconds=seconds)
        log.info(
            "run_parked" if seconds is None else "run_will_retry",
            extra={"run_id": run.id, "task": run.task, "attempt": run.attempt, "code": error.code},
        )

    def _next(self, declared: Task, run: Run, error: RunError) -> tuple[str, float | None]:
        scale = self._context.retry_scale
        if isinstance(error, Snooze):
            return "snoozed", error.seconds * scale
        if isinstance(error, Permanent):
            return "failure", None
        seconds = backoff.delay(
            declared.policy,
            run.spent,
            self._context.random,
            retry_after_seconds=error.retry_after_seconds,
            scale=scale,
        )
        return ("ambiguous" if isinstance(error, Ambiguous) else "retry"), seconds

    def _give_back(self, unbegun: Sequence[Run]) -> None:
        if not unbegun:
            return
        try:
            with self._context.transaction() as session:
                runs.give_back(session, unbegun)
        except LeaseLost:
            log.warning("bundle_fenced", extra={"runs": len(unbegun)})
        for run in unbegun:
            self._holding.drop(run.id)

    def _fenced(self, run: Run, lost: LeaseLost) -> None:
        """Say in the history that a late worker came back and was refused."""
        run.outcome = FENCED
        metrics.fenced(run.task)
        log.warning("run_fenced", extra={"run_id": run.id, "attempt": run.attempt, "code": str(lost)[:80]})
        with self._context.transaction() as session:
            session.execute(
                update(attempts)
                .where(
                    attempts.c.run_id == run.id,
                    attempts.c.number == run.attempt,
                    attempts.c.outcome == "lost",
                )
                .values(outcome="fenced")
            )


def _unexpected(run: Run, raised: Exception) -> RunError:
    # The type is kept, the text is not: it may quote a secret or a person.
    log.error(
        "run_raised",
        exc_info=raised,
        extra={"run_id": run.id, "task": run.task, "attempt": run.attempt, "code": "internal"},
    )
    return Retryable("internal", f"an unexpected {type(raised).__name__}; the log has its trace")


def _final(error: RunError) -> Permanent:
    if isinstance(error, Permanent):
        return error
    return Permanent(error.code, f"attempts used up: {error.detail}", evidence=error.evidence)
