# SPDX-License-Identifier: Apache-2.0
"""Queues, routes and pools as data, and the check that nothing falls between them.

The usual failure is silent: a task without a route goes to a queue that nobody consumes and
is pending for ever. Here it refuses to start and says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from conferral.reliable.errors import RoutingError

MIN_QUEUE_BOUND = 64  # below this a burst of short runs starves between two dispatcher passes
BOUND_PER_SLOT = 4


@dataclass(frozen=True, slots=True)
class Pool:
    """Worker processes that consume one class of work.

    Attributes:
        name: short name, also the node's (`hp` becomes `hp@host`).
        queue: the only queue it consumes.
        kind: `prefork` where CPU is spent, `threads` where waiting is.
        slots: how many runs it executes at once.
        hard_limit_seconds: prefork only; a child that works longer is killed.
    """

    name: str
    queue: str
    kind: Literal["prefork", "threads"]
    slots: int
    hard_limit_seconds: int | None = None

    @property
    def forks(self) -> bool:
        """Return whether its main process forks and so must never open the database."""
        return self.kind == "prefork"


@dataclass(frozen=True, slots=True)
class Routing:
    """Which task goes to which queue, and who consumes it.

    Attributes:
        routes: (task name pattern, queue), first match wins.
        pools: the pools of the whole deployment, on whatever hosts.
        rates: runs a second a queue may be given, for peers with a limit; absent = unlimited.
    """

    routes: tuple[tuple[str, str], ...]
    pools: tuple[Pool, ...]
    rates: Mapping[str, float] | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """Return every queue that a route names, once, in order."""
        return tuple(dict.fromkeys(queue for _, queue in self.routes))

    def queue_of(self, task: str) -> str:
        """Return the queue of a task, or raise RoutingError.

        >>> Routing((("mail.*", "default"),), ()).queue_of("mail.send")
        'default'
        """
        for pattern, queue in self.routes:
            if fnmatchcase(task, pattern):
                return queue
        raise RoutingError(f"task {task} has no route; add a pattern for it to the routes")

    def pool(self, name: str) -> Pool:
        """Return the pool of that name, or raise RoutingError naming the known ones."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        known = ", ".join(pool.name for pool in self.pools)
        raise RoutingError(f"there is no pool {name}; known pools: {known}")

    def rate_of(self, queue: str) -> float | None:
        """Return how many runs a second the queue may be given, or None for no limit."""
        return (self.rates or {}).get(queue) or None


def check(routing: Routing, tasks: Iterable[str], schedule: Mapping[str, str]) -> None:
    """Refuse to start with work that nothing would execute.

    Args:
        routing: the routes and pools of the deployment.
        tasks: names of all declared tasks.
        schedule: schedule entry name to task name.

    Raises:
        RoutingError: naming every unrouted task, unconsumed queue, unregistered entry and so on, at once.
    """
    declared = set(tasks)
    faults = [*_unrouted(routing, declared)]
    consumed = {pool.queue for pool in routing.pools}
    faults += [
        f"queue {queue} has no pool that consumes it" for queue in routing.queues if queue not in consumed
    ]
    faults += [
        f"pool {pool.name} consumes queue {pool.queue}, to which no route leads"
        for pool in routing.pools
        if pool.queue not in routing.queues
    ]
    names = [pool.name for pool in routing.pools]
    faults += [f"two pools are named {name}" for name in sorted(set(names)) if names.count(name) > 1]
    faults += [
        f"the rate of queue {queue} limits nothing: no route leads there"
        for queue in routing.rates or {}
        if queue not in routing.queues
    ]
    faults += [
        f"schedule entry {entry} names task {task}, which is not declared"
        for entry, task in schedule.items()
        if task not in declared
    ]
    if faults:
        raise RoutingError("; ".join(faults))


def _unrouted(routing: Routing, tasks: Iterable[str]) -> Iterable[str]:
    for name in sorted(tasks):
        try:
            routing.queue_of(name)
        except RoutingError as error:
            yield str(error)
