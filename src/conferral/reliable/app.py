# SPDX-License-Identifier: Apache-2.0
"""make_celery(): a Celery application with safe defaults, each with its reason beside it.

What a worker needs of the database is built once per process and after fork (`Process`);
what a queue needs of the database is done by the dispatcher, in workers that do not fork.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery, bootsteps, signals
from celery.exceptions import Ignore, Reject
from celery.platforms import EX_FAILURE
from kombu import Exchange, Queue
from sqlalchemy.exc import SQLAlchemyError

from conferral.reliable import alive
from conferral.reliable.bell import UNREACHABLE
from conferral.reliable.celery_settings import CELERY_SETTINGS, transport_options
from conferral.reliable.context import Context
from conferral.reliable.dispatcher import Dispatcher
from conferral.reliable.errors import RoutingError
from conferral.reliable.holding import Holding, Presence
from conferral.reliable.owner import this_process
from conferral.reliable.routing import Pool, Routing, check
from conferral.reliable.tables import FAILURE, RETRY
from conferral.reliable.task import MAX_BUNDLE, Executor, Task, Unclaimed

log = logging.getLogger(__name__)

SOCKET_SECONDS = 5.0
PUT_BACK_SECONDS = 1.0  # between two tries to claim while the database is away
COLD_SECONDS = 1.5  # for Celery to put its messages back
CHILDREN_SECONDS = 0.25  # one waitpid() a child
MAX_NODE = 50  # characters of a node's name before the owner (66) in a column of 120


def make_celery(
    name: str,
    *,
    broker_url: str,
    result_url: str,
    routing: Routing,
    schedule: Mapping[str, Any] | None = None,
    socket_seconds: float = SOCKET_SECONDS,
) -> Celery:
    """Return a configured application that declares exactly the queues of `routing`.

    Args:
        name: the application's name, shown by monitors.
        broker_url: Redis/Valkey, database 0 by convention.
        result_url: Redis/Valkey, another database or another server.
        routing: queues, routes and pools.
        schedule: Beat entries, as Celery's `beat_schedule`.
        socket_seconds: how long one exchange with Redis may take; a web process that only
            publishes passes a fraction of a second.
    """
    app = Celery(name, set_as_current=False)
    app.conf.update(
        CELERY_SETTINGS,
        broker_url=broker_url,
        result_backend=result_url,
        broker_transport_options=transport_options(broker_url, socket_seconds),
        redis_socket_timeout=socket_seconds,
        redis_socket_connect_timeout=socket_seconds,
        task_queues=[Queue(queue, Exchange(queue), routing_key=queue) for queue in routing.queues],
        task_default_queue="default" if "default" in routing.queues else routing.queues[0],
        beat_schedule=dict(schedule or {}),
    )
    return app


@dataclass(frozen=True, slots=True)
class Process:
    """What one worker process has, built at first use after fork."""

    context: Context
    holding: Holding
    executor: Executor


@dataclass(slots=True)
class _Bound:
    """What `bind` attached to an application."""

    routing: Routing
    tasks: Mapping[str, Task]
    make_context: Callable[[], Context]
    pool: Pool | None = None  # what this process serves, if it is a worker
    process: Process | None = None
    pid: int = 0


_BOUND = "conferral_bound"


def bind(
    app: Celery, tasks: Mapping[str, Task], routing: Routing, make_context: Callable[[], Context]
) -> None:
    """Register declared tasks with an application and prove that all of them will be executed.

    Raises:
        RoutingError: a task, queue or schedule entry leads nowhere; the text says which.
    """
    schedule = {name: entry["task"] for name, entry in app.conf.beat_schedule.items()}
    check(routing, tasks, schedule)
    setattr(app, _BOUND, _Bound(routing, dict(tasks), make_context))
    for declared in tasks.values():
        register = app.task(name=declared.name, bind=True, ignore_result=True)
        register(_celery_function(app, declared.name))


def process_of(app: Celery) -> Process:
    """Return this process's database, heartbeat and executor; a forked child gets its own.

    In a worker the heartbeat is started with it, whoever asks first: a lease is never taken
    by a process that cannot renew it.
    """
    bound: _Bound = getattr(app, _BOUND)
    with _building:
        if bound.process is None or bound.pid != os.getpid():
            context = bound.make_context()
            holding = Holding(context)
            bound.process = Process(context, holding, Executor(context, bound.tasks, holding))
            bound.pid = os.getpid()
        process = bound.process
    if bound.pool is not None:
        process.holding.start(_presence(bound.pool))
    return process


# Threads of one worker ask at the same time; two Holdings would leave one without a heartbeat.
# No process that forks ever takes it, so no child inherits it taken.
_building = threading.Lock()


def install_worker(app: Celery, pool: Pool) -> None:
    """Make the coming `celery worker` of this process serve `pool`.

    Prefork: each child has its own heartbeat, and the main process, which forks, never opens
    the database. Threads: the one process does, and it also runs a dispatcher. Every main
    process touches an alive file from its consumer's timer.
    """
    bound: _Bound = getattr(app, _BOUND)
    if pool not in bound.routing.pools:
        raise RoutingError(f"pool {pool.name} is not part of the routing")
    bound.pool = pool
    app.steps["consumer"].add(_AliveFile)
    if pool.forks:
        app.steps["consumer"].add(_WatchChildren)
        app.conf.task_time_limit = pool.hard_limit_seconds
        signals.worker_process_init.connect(
            lambda **_: process_of(app), weak=False, dispatch_uid=f"process-{pool.name}"
        )
    else:
        app.steps["worker"].update((_DispatcherStep, _CutThreads))
        signals.worker_init.connect(
            lambda **_: process_of(app), weak=False, dispatch_uid=f"process-{pool.name}"
        )


def node_name(pool: str) -> str:
    """Return the node's full name, as Celery and Flower show it."""
    return f"{pool}@{os.uname().nodename}"


def _presence(pool: Pool) -> Presence:
    return Presence(node_name(pool.name), pool.name, (pool.queue,), slots=1 if pool.forks else pool.slots)


def _celery_function(app: Celery, name: str) -> Callable[..., Any]:
    def execute(self: Any, run_ids: Any = None, *_: Any, **__: Any) -> str:
        if not _is_ring(run_ids):
            log.error("ring_malformed", extra={"task": name, "code": "ring_malformed"})
            raise Ignore
        try:
            everything = process_of(app).executor.execute(name, run_ids)
            executed = [run for run in everything if run.id in run_ids]
        except (Unclaimed, SQLAlchemyError) as error:
            log.warning("ring_put_back", extra={"task": name, "code": str(error)[:80]})
            time.sleep(PUT_BACK_SECONDS)  # this slot has nothing else to do without a database
            raise Reject(requeue=True) from error
        if not executed:
            raise Ignore  # done already, or somebody else has it
        if len(run_ids) == 1 and executed[0].outcome in (RETRY, FAILURE):
            _tell_monitors(self, executed[0].outcome)
            raise Ignore
        return ",".join(f"{run.outcome}" for run in executed)

    execute.__name__ = name.rpartition(".")[2]
    return execute


# Whatever else a message may carry (a NUL, half a surrogate pair) never reaches a database.
_RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _is_ring(run_ids: Any) -> bool:
    return (
        isinstance(run_ids, list)
        and 0 < len(run_ids) <= MAX_BUNDLE
        and all(isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) for run_id in run_ids)
    )


def _tell_monitors(task: Any, outcome: str) -> None:
    """Let Flower say retried or failed; the row has said it already."""
    event = "task-retried" if outcome == RETRY else "task-failed"
    try:
        task.send_event(event, retry=False, exception=outcome, traceback="")
    except UNREACHABLE as error:
        log.debug("monitor_not_told", extra={"code": type(error).__name__})


class _DispatcherStep(bootsteps.StartStopStep):
    """Runs the dispatcher as long as the worker runs."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._dispatcher: Dispatcher | None = None

    def start(self, parent: Any) -> None:
        bound: _Bound = getattr(parent.app, _BOUND)
        holder = f"{parent.hostname[:MAX_NODE]} {this_process()}"
        self._dispatcher = Dispatcher(parent.app, process_of(parent.app).context, bound.tasks, holder)
        self._dispatcher.start()

    def stop(self, parent: Any) -> None:
        del parent
        if self._dispatcher is not None:
            self._dispatcher.stop()


class _CutThreads(bootsteps.StartStopStep):
    """Makes SIGQUIT end a pool of threads as it ends one of processes: at once.

    Threads cannot be cut. Celery 5.6 raises inside its signal handler for want of a
    `terminate_job`, and then waits for them. What was cut comes back through its lease.
    """

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        parent.pool.terminate_job = lambda *_, **__: None
        celerys_own = signal.getsignal(signal.SIGQUIT)

        def leave(number: int, frame: Any) -> None:
            farewell = threading.Timer(COLD_SECONDS, os._exit, (EX_FAILURE,))
            farewell.daemon = True
            farewell.start()
            if callable(celerys_own):
                celerys_own(number, frame)

        signal.signal(signal.SIGQUIT, leave)


class _AliveFile(bootsteps.StartStopStep):
    """Touches `<node>.alive` from the consumer's own timer: a deaf worker stops touching it.

    A step of the consumer, not of the worker: Celery clears the timer whenever it loses the
    broker, and starts the consumer's steps again when it is back. Until then the loop that
    waits for the broker gives the sign, each second: who waits there is not deaf.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        connected = parent.ensure_connected

        def ensure_connected(connection: Any) -> Any:
            waiting = connection.ensure_connection

            def ensure_connection(*args: Any, callback: Callable[[], Any], **options: Any) -> Any:
                def still_waiting() -> None:
                    alive.touch(parent.hostname)
                    callback()

                return waiting(*args, callback=still_waiting, **options)

            connection.ensure_connection = ensure_connection
            return connected(connection)

        parent.ensure_connected = ensure_connected

    def start(self, parent: Any) -> None:
        alive.touch(parent.hostname)
        parent.timer.call_repeatedly(alive.ALIVE_SECONDS, alive.touch, (parent.hostname,))


class _WatchChildren(bootsteps.StartStopStep):
    """Looks for dead children often; a step of the consumer for the same reason as `_AliveFile`.

    Celery looks once when a child closes its pipe. That is a moment before the kernel has
    ended it, so half of the time it sees a living child and looks again 5 s later.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        parent.timer.call_repeatedly(CHILDREN_SECONDS, parent.pool.maintain_pool)
