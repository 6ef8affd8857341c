# SPDX-License-Identifier: Apache-2.0
"""One empty database of the reliable layer on each engine, with a clock that stands until moved."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from conferral.reliable import holding, task
from conferral.reliable.bell import Bell, Bundle
from conferral.reliable.context import Context
from conferral.reliable.outbox import Ring, Shown
from conferral.reliable.owner import this_process
from conferral.reliable.promises import promise
from conferral.reliable.routing import Pool, Routing
from conferral.reliable.runs import Run, claim, unring
from conferral.reliable.tables import attempts, metadata, runs
from conferral.reliable.testing import FrozenTime
from conferral.store.engine import Database
from support.postgres import postgres_server

ROUTING = Routing(
    routes=(("fast.*", "fast"), ("slow.*", "slow"), ("rationed.*", "rationed")),
    pools=(
        Pool("fast", "fast", "prefork", 2),
        Pool("slow", "slow", "threads", 4),
        Pool("rationed", "rationed", "threads", 4),
    ),
    rates={"rationed": 2.0},
)
LEASE_SECONDS = 30.0


class RecordingBell(Bell):
    """A bell that remembers what it would have rung and shown; `works` says whether it can."""

    def __init__(self) -> None:
        self.rung: list[Bundle] = []
        self.shown: list[Shown] = []
        self.works = True

    @property
    def is_quiet(self) -> bool:
        """It always tries."""
        return False

    def ring(self, rings: Any) -> list[str]:
        """Remember the rings."""
        return self.ring_bundles([Bundle(ring.task, ring.queue, (ring.run_id,)) for ring in rings])

    def ring_bundles(self, bundles: Any) -> list[str]:
        """Remember the bundles, or say that none was rung."""
        if not self.works:
            return [run_id for bundle in bundles for run_id in bundle.run_ids]
        self.rung += bundles
        return []

    def show(self, shown: Any) -> None:
        """Remember the states."""
        self.shown += shown

    def take(self) -> list[Bundle]:
        """Return what was rung since the last time."""
        rung, self.rung = self.rung, []
        return rung


@dataclass
class House:
    """A database, its clock, its bell, and short words for what tests do all the time."""

    database: Database
    time: FrozenTime
    bell: RecordingBell
    url: str
    owner: str = field(default_factory=this_process)

    def context(self, **options: Any) -> Context:
        """Return a context over this database."""
        figures: dict[str, Any] = {
            "transaction": self.database.transaction,
            "snapshot": self.database.snapshot,
            "now": self.database.now,
            "routing": ROUTING,
            "record_pauses_seconds": (0.0,),
        }
        return Context(**{**figures, **options})

    def executor(self, tasks: Mapping[str, task.Task], **options: Any) -> task.Executor:
        """Return an executor without a heartbeat."""
        context = self.context(**options)
        return task.Executor(context, tasks, holding.Holding(context))

    def promise(self, name: str = "fast.do", args: tuple[str, ...] = ("a",), **options: Any) -> str:
        """Promise in a transaction of its own."""
        with self.database.transaction() as session:
            return promise(session, name, args, **options)

    def claim(self, *run_ids: str, owner: str | None = None) -> list[Run]:
        """Claim in a transaction of its own."""
        with self.database.transaction() as session:
            return claim(session, run_ids, owner=owner or self.owner, lease_seconds=LEASE_SECONDS)

    def lose_bells(self, run_ids: Sequence[str]) -> None:
        """Let these runs be due and not rung, as if Redis had been away."""
        with self.database.transaction() as session:
            unring(session, run_ids)
        self.bell.take()

    def one(self, run_id: str) -> Any:
        """Return the row of a run."""
        with self.database.snapshot() as session:
            return session.execute(select(runs).where(runs.c.id == run_id)).one()

    def state(self, run_id: str) -> str:
        """Return a run's state."""
        return str(self.one(run_id).state)

    def outcomes(self, run_id: str) -> list[str]:
        """Return the outcomes of a run's attempts in order."""
        with self.database.snapshot() as session:
            statement = select(attempts.c.outcome).where(attempts.c.run_id == run_id)
            return list(session.execute(statement.order_by(attempts.c.number)).scalars())

    def count(self) -> int:
        """Return how many runs there are."""
        with self.database.snapshot() as session:
            return len(session.execute(select(runs.c.id)).all())


def rings_of(house: House) -> list[Ring]:
    """Return what was rung singly since the last time."""
    return [Ring(run_id, one.task, one.queue) for one in house.bell.take() for run_id in one.run_ids]


@contextlib.contextmanager
def house_on(kind: str, folder: Path, clock: Callable[[], datetime] | None = None) -> Iterator[House]:
    """Yield an empty house on `sqlite` or `postgresql`; PostgreSQL runs once a test session."""
    url = f"sqlite:///{folder}/runs.db" if kind == "sqlite" else _postgres_url()
    time, bell = FrozenTime(), RecordingBell()
    database = Database(url, routing=ROUTING, bell=bell, clock=clock or time, pool_size=12)
    metadata.create_all(database.engine)
    try:
        yield House(database, time, bell, url)
    finally:
        if kind == "postgresql":
            with database.engine.begin() as connection:
                for table in metadata.sorted_tables:
                    connection.execute(text(f"TRUNCATE {table.name}"))
        database.dispose()


_servers = contextlib.ExitStack()
_url: list[str] = []


def _postgres_url() -> str:
    if not _url:
        _url.append(_servers.enter_context(postgres_server()))
        atexit.register(_servers.close)
    return _url[0]
