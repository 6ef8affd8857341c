# SPDX-License-Identifier: Apache-2.0
"""How a task is declared and executed: claim, call, settle; or retry, or park.

    @task("tasks.notifications.send", policy=EMAIL, on_dead=give_up)
    def send(run: Run, delivery_id: str) -> None: ...

The function settles its run in the commit that records its effect. If it returns without
having done so, the run is settled here with what it returned.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from conferral.reliable import backoff, metrics, runs
from conferral.reliable.backoff import RetryPolicy
from conferral.reliable.context import Context
from conferral.reliable.crash_points import crash_point, current_task
from conferral.reliable.errors import Ambiguous, LeaseLost, Permanent, Retryable, RunError, Snooze
from conferral.reliable.holding import Holding
from conferral.reliable.outbox import Ring, outbox_of
from conferral.reliable.owner import is_gone
from conferral.reliable.rescue import interrupted, orphans, rescue_gone
from conferral.reliable.runs import OnDead, Run
from conferral.reliable.tables import FAILURE, LEASED, RETRY, RUNG, attempts
from conferral.reliable.tables import runs as runs_table

log = logging.getLogger(__name__)

MAX_BUNDLE = 32  # runs a message: beyond it the gain is flat and a lost bundle hurts more
# A bundle gives back what it has not begun after this long: below issuance's hard limit of
# 25 s, and short enough that a neighbour's slow effect does not delay the rest for long.
BUNDLE_SECONDS = 10.0

FENCED = "FENCED"


class Unclaimed(Exception):
    """The database could not be asked for the run; the bell shall be rung again."""


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


def burials(tasks: Mapping[str, Task]) -> Callable[[str], OnDead | None]:
    """Return the look-up of a task's `on_dead` by the task's name; rescue and cancel need it.

    >>> burials({})("example.greet") is None
    True
    """
    return lambda name: tasks[name].on_dead if name in tasks else None


class Executor:
    """Executes runs in one process: threads may share it."""

    def __init__(self, context: Context, tasks: Mapping[str, Task], holding: Holding) -> None:
        self._context = context
        self._tasks = tasks
        self._holding = holding
        self._burials = burials(tasks)
        self._is_new = True

    def on_dead(self, name: str) -> OnDead | None:
        """Return a task's burial by name."""
        return self._burials(name)

    def execute(self, name: str, run_ids: Sequence[str]) -> list[Run]:
        """Claim and execute; return the runs that were ours, each with its outcome.

        Raises:
            Unclaimed: the database could not be asked; nothing was executed.
        """
        began = time.monotonic()
        taken: list[Run] = []
        if self._is_new:
            self._is_new = False
            taken = self._take_over(self._context.routing.queue_of(name))
        return taken + self._execute(name, run_ids, began + BUNDLE_SECONDS)

    def _take_over(self, queue: str) -> list[Run]:
        """Go on with a run that another process was killed in, before this one's first message.

        The broker puts the message of a killed child behind all others, so that in the middle of
        a batch its run would wait for the whole queue. The place of the dead is taken by a new
        process, and that knows by being new that somebody may be missing.
        """
        try:
            with self._context.snapshot() as session:
                gone = orphans(session)
            if gone:
                self._rescue(gone)
            with self._context.snapshot() as session:
                waiting = interrupted(session, queue)
            for run_id, name in waiting:
                if name in self._tasks and (taken := self._execute(name, [run_id], time.monotonic())):
                    return taken
        except (Unclaimed, SQLAlchemyError) as error:
            log.warning("nothing_taken_over", extra={"code": type(error).__name__})
        return []

    def _execute(self, name: str, run_ids: Sequence[str], deadline: float) -> list[Run]:
        current_task.name = name
        claimed = self._claim(name, list(dict.fromkeys(run_ids)))
        try:
            crash_point("claimed")
            self._execute_all(self._tasks[name], claimed, deadline)
        finally:
            # Whatever happened above: a lease that nobody works under must run out.
            for run in claimed:
                self._holding.drop(run)
        return claimed

    def _execute_all(self, declared: Task, claimed: Sequence[Run], deadline: float) -> None:
        for position, run in enumerate(claimed):
            if position and (run.is_refused or time.monotonic() > deadline):
                self._give_back(claimed[position:])
                return
            self._execute_one(declared, run)
            if declared.stops_at_failure and run.outcome in (RETRY, FAILURE):
                self._give_back(claimed[position + 1 :])
                return

    def _claim(self, name: str, run_ids: Sequence[str]) -> list[Run]:
        try:
            with self._context.transaction() as session:
                claimed = runs.claim(
                    session,
                    run_ids,
                    owner=self._holding.owner,
                    lease_seconds=self._context.lease_seconds,
                    task=name,
                )
        except SQLAlchemyError as error:
            raise Unclaimed(type(error).__name__) from error
        self._holding.add(claimed)
        refused = set(run_ids) - {run.id for run in claimed}
        if refused:
            self._look_after(sorted(refused))
        return claimed

    def _look_after(self, refused: Sequence[str]) -> None:
        """See why runs were refused; most are done already, and that costs one read."""
        try:
            with self._context.snapshot() as session:
                held = session.execute(
                    select(runs_table.c.id, runs_table.c.lease_owner).where(
                        LEASED, runs_table.c.id.in_(refused)
                    )
                ).all()
                early = session.execute(
                    select(runs_table.c.id).where(RUNG, runs_table.c.id.in_(refused))
                ).scalars().all()  # fmt: skip
            gone = [row.id for row in held if is_gone(row.lease_owner or "")]
            if gone:
                self._rescue(gone)
            if early:
                self._unring(early)
        except SQLAlchemyError as error:
            log.warning("refused_not_looked_after", extra={"code": type(error).__name__})

    def _rescue(self, run_ids: Sequence[str]) -> None:
        """Rescue what a child of this host held when it died, and ring it at once."""
        with self._context.transaction() as session:
            rescued = rescue_gone(session, run_ids, self._burials)
            again = [Ring(one.run_id, one.task, one.queue) for one in rescued if one.state == RETRY]
            outbox_of(session).rings.extend(again)
        metrics.rescued(len(rescued))
        for one in rescued:
            log.warning("run_rescued", extra={"run_id": one.run_id, "task": one.task, "state": one.state})

    def _unring(self, run_ids: Sequence[str]) -> None:
        # Rung, claimable and yet refused: paused, or due by another host's clock and not by
        # ours. Its bell is used up now, so the dispatcher shall ring again in time.
        with self._context.transaction() as session:
            runs.unring(session, run_ids)

    def _execute_one(self, declared: Task, run: Run) -> None:
        began = time.perf_counter()
        current_task.run_id = run.id
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
            self._holding.drop(run)
            metrics.observe_run(declared.name, run.outcome or "unknown", time.perf_counter() - began)

    def _record_failure(self, declared: Task, run: Run, raised: Exception) -> None:
        """Record how the attempt ended; patiently, because what cannot be recorded is done again.

        A burial (`on_dead`) that raises parks nothing at first. If it still raises after the
        pauses, the run is parked without it, loudly: neither lost nor tried for ever.
        """
        error = raised if isinstance(raised, RunError) else _unexpected(run, raised)
        burial = declared.on_dead
        for pause in (*self._context.record_pauses_seconds, None):
            if self._recorded(declared, run, error, burial):
                return
            if pause is not None:
                time.sleep(pause)
            error = _without_evidence(error)
        if burial is not None:
            self._recorded(declared, run, error, None)

    def _recorded(self, declared: Task, run: Run, error: RunError, burial: OnDead | None) -> bool:
        """Try to record; return whether there is nothing left to do."""
        try:
            with self._context.transaction() as session:
                self._retry_or_park(session, declared, run, error, burial)
        except LeaseLost as lost:
            self._fenced(run, lost)
        except Exception as unrecorded:
            # The lease will run out, if nothing can be written, and the rescuer records it.
            run.outcome = None
            level = logging.WARNING if isinstance(unrecorded, OperationalError) else logging.ERROR
            log.log(
                level, "failure_not_recorded", exc_info=level == logging.ERROR,
                extra={"run_id": run.id, "task": run.task, "code": type(unrecorded).__name__},
            )  # fmt: skip
            return False
        return True

    def _retry_or_park(
        self, session: Session, declared: Task, run: Run, error: RunError, burial: OnDead | None
    ) -> None:
        outcome, seconds = self._next(declared, run, error)
        if seconds is None:
            runs.park(session, run, error)
            if burial is not None:
                burial(session, run, _final(error))
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
        except SQLAlchemyError as error:  # their leases run out, and they come back uncharged
            log.warning("bundle_not_given_back", extra={"code": type(error).__name__})

    def _fenced(self, run: Run, lost: LeaseLost) -> None:
        """Say in the history that a late worker came back and was refused."""
        run.outcome = FENCED
        metrics.fenced(run.task)
        log.warning("run_fenced", extra={"run_id": run.id, "attempt": run.attempt, "code": str(lost)[:80]})
        try:
            with self._context.transaction() as session:
                session.execute(
                    update(attempts)
                    .where(
                        attempts.c.run_id == run.id,
                        attempts.c.number == run.number,
                        attempts.c.owner == run.owner,
                        attempts.c.outcome == "lost",
                    )
                    .values(outcome="fenced")
                )
        except SQLAlchemyError as error:
            log.warning("fence_not_recorded", extra={"run_id": run.id, "code": type(error).__name__})


def _unexpected(run: Run, raised: Exception) -> RunError:
    # The type is kept, the text is not: it may quote a secret or a person.
    log.error(
        "run_raised",
        exc_info=raised,
        extra={"run_id": run.id, "task": run.task, "attempt": run.attempt, "code": "internal"},
    )
    return Retryable("internal", f"an unexpected {type(raised).__name__}; the log has its trace")


def _without_evidence(error: RunError) -> RunError:
    """Return the error without what a column might refuse: what was not recorded is said shorter."""
    if not error.evidence:
        return error
    bare = copy.copy(error)
    bare.evidence = {}
    return bare


def _final(error: RunError) -> Permanent:
    if isinstance(error, Permanent):
        return error
    return Permanent(error.code, f"attempts used up: {error.detail}", evidence=error.evidence)
