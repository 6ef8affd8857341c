# SPDX-License-Identifier: Apache-2.0
"""What the past and the waiting cost: claims and the dispatcher's passes beside many rows, on both databases.

Two databases stand side by side and are asked in turns: one empty, one full. So a busy machine
slows both, and the ratio stays. SQLite is measured by CPU, because it works in this process;
PostgreSQL by the clock, and the fastest fifth counts, because others want the cores, too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from conferral.reliable import pauses, runs
from conferral.reliable.dispatcher import Dispatcher
from conferral.reliable.promises import BULK, Promise, promise_all
from conferral.reliable.tables import metadata
from conferral.reliable.task import MAX_BUNDLE, Task
from conferral.store.engine import Database
from support.bench_report import Report, percentile
from support.postgres import postgres_server
from support.reliable_database import ROUTING, House, RecordingBell

SECTION = "The reliable layer: what waits and what is done"
QUEUE = "fast"
TASKS = {"fast.do": Task("fast.do", print, bundle=MAX_BUNDLE)}
PAUSED_GROUP = "paused"
BOUND = "+10 %"
FASTEST = 0.2


@dataclass(frozen=True)
class Sizes:
    """How many rows of each kind, and how often something is measured."""

    finished: int
    due: int
    tenants: int
    rounds: int


SMALL = Sizes(finished=20_000, due=2_000, tenants=50, rounds=15)
FULL = Sizes(finished=1_000_000, due=100_000, tenants=500, rounds=60)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_cost_of_claims_and_passes(kind: str, tmp_path: Path, report: Report, *, full: bool) -> None:
    """An empty database, beside one with finished rows, then due rows, then a paused group."""
    sizes = FULL if full else SMALL
    with two_houses(kind, tmp_path) as (empty, busy):
        tell = _Teller(report, kind, empty, busy, sizes)
        tell("with nothing beside")
        _insert(busy, sizes.finished, _finished(sizes))
        tell(f"beside {sizes.finished:,} finished rows")
        _insert(busy, sizes.due, _due(sizes, "due", "NULL"))
        tell(f"and {sizes.due:,} due rows of {sizes.tenants} tenants")
        _delete(busy, "due")
        with busy.database.transaction() as session:
            pauses.pause(session, "group", PAUSED_GROUP)
        _insert(busy, sizes.due, _due(sizes, "held", f"'{PAUSED_GROUP}'"))
        stepping = _Stepping(busy)
        tell.passes("stepping over a paused group of as many", stepping)
        seconds, steps = _timed_steps(busy)
        moved = f"{seconds:.1f} s in {steps} steps"
        report.add(SECTION, f"{kind}: moving it out of the index, {sizes.due:,} rows", moved)
        tell("and that group moved out of the index")


class _Stepping(Dispatcher):
    """A dispatcher whose bell is recorded, and which does not move paused groups out of its way."""

    def __init__(self, house: House) -> None:
        super().__init__(None, house.context(), TASKS, "bench")  # type: ignore[arg-type]
        self._bell = house.bell

    def _length(self, _: str) -> int:
        return 0

    def _move_groups(self) -> bool:
        return False


class _Ringer(_Stepping):
    """The dispatcher as it is."""

    _move_groups = Dispatcher._move_groups


class _Teller:
    """Measures the empty house and the busy one in turns, and reports both."""

    def __init__(self, report: Report, kind: str, empty: House, busy: House, sizes: Sizes) -> None:
        self._report, self._kind, self._sizes = report, kind, sizes
        self._empty, self._busy = empty, busy
        self._ringers = {id(house): _Ringer(house) for house in (empty, busy)}

    def __call__(self, beside: str) -> None:
        """Report a claim with its settling, a bundle of 32, and a pass."""
        self._tell(f"claim and settle, {beside}", _claim_and_settle, bound=BOUND)
        self._tell(f"claim of a bundle of {MAX_BUNDLE}, {beside}", _claim_bundle, bound=BOUND)
        self.passes(beside)

    def passes(self, beside: str, ringer: Dispatcher | None = None) -> None:
        """Report a pass of the dispatcher that tops a queue up."""
        by_house = dict(self._ringers)
        if ringer is not None:
            by_house[id(self._busy)] = ringer
        self._tell(f"dispatch pass, {beside}", lambda house: _pass(house, by_house[id(house)]))

    def _tell(self, what: str, measured: Callable[[House], float], *, bound: str = "") -> None:
        empty: list[float] = []
        busy: list[float] = []
        for _ in range(self._sizes.rounds):
            empty.append(measured(self._empty))
            busy.append(measured(self._busy))
        slow, quick = (percentile(seconds, FASTEST) * 1000 for seconds in (busy, empty))
        ratio = f"{slow / quick:.2f}x the empty one ({quick:.2f} ms)"
        self._report.add(SECTION, f"{self._kind}: {what}", f"{slow:.2f} ms", ratio=ratio, bound=bound)


def _claim_and_settle(house: House) -> float:
    (run_id,) = _promised(house, 1)
    began = _clock(house)
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        run.settle(session)
    return _clock(house) - began


def _claim_bundle(house: House) -> float:
    ids = _promised(house, MAX_BUNDLE)
    began = _clock(house)
    claimed = house.claim(*ids)
    took = _clock(house) - began
    assert len(claimed) == MAX_BUNDLE
    for run in claimed:
        with house.database.transaction() as session:
            run.settle(session)
    return took


def _pass(house: House, ringer: Dispatcher) -> float:
    """Time one pass that finds a queue empty and fills it; then let what it rang be done."""
    _promised(house, 8)
    began = _clock(house)
    ringer.sweep()
    took = _clock(house) - began
    rung = [run_id for one in house.bell.take() for run_id in one.run_ids]
    with house.database.transaction() as session:
        for run in runs.claim(session, rung, owner=house.owner, lease_seconds=30):
            run.settle(session)
    return took


def _clock(house: House) -> float:
    return time.thread_time() if house.url.startswith("sqlite") else time.perf_counter()


def _promised(house: House, count: int) -> list[str]:
    wanted = [Promise(task="fast.do", args=["x"], tenant="bench", priority=BULK) for _ in range(count)]
    with house.database.transaction() as session:
        return promise_all(session, wanted)


def _timed_steps(house: House) -> tuple[float, int]:
    began, steps, is_left = time.perf_counter(), 0, True
    while is_left:
        with house.database.transaction() as session:
            is_left = pauses.move_group(session, PAUSED_GROUP)
        steps += 1
    return time.perf_counter() - began, steps


def _finished(sizes: Sizes) -> dict[str, str]:
    """Return the columns of rows as a year of batches leaves them."""
    return {
        "id": _id("f"), "task": "'fast.do'", "queue": f"'{QUEUE}'", "args": "'[\"x\"]'",
        "key": "'key:' || n", "group_key": "'batch' || (n / 10000)", "subject": "'cred_' || n",
        "bundle_key": "'relay'", "tenant": f"'t' || (n % {sizes.tenants})", "priority": str(BULK),
        "state": "'SUCCESS'", "attempt": "1", "spent": "1",
    }  # fmt: skip


def _due(sizes: Sizes, prefix: str, group: str) -> dict[str, str]:
    return {
        "id": _id(prefix[0]), "task": "'fast.do'", "queue": f"'{QUEUE}'", "args": "'[\"x\"]'",
        "key": f"'{prefix}:' || n", "group_key": group, "subject": f"'{prefix}'", "bundle_key": "'relay'",
        "tenant": f"'t' || (n % {sizes.tenants})", "priority": str(BULK), "state": "'PENDING'",
        "attempt": "0", "spent": "0",
    }  # fmt: skip


def _id(letter: str) -> str:
    return f"'{letter}0000000-0000-7000-8000-' || substr('000000000000' || n, -12)"


def _insert(house: House, count: int, columns: dict[str, str]) -> None:
    """Let the database make the rows by itself; then gather statistics, as its daily work does."""
    is_sqlite = house.url.startswith("sqlite")
    if not is_sqlite:
        columns = columns | {"id": columns["id"].replace("substr(", "right(").replace(", -12)", ", 12)")}
    at = house.database.now()
    told = {"at": _microseconds(at) if is_sqlite else at, "count": count}
    times = {"due_at": ":at", "created_at": ":at"}
    names, values = zip(*(columns | times).items(), strict=True)
    sequence = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)"
    if not is_sqlite:
        sequence = "WITH numbers(n) AS (SELECT generate_series(1, :count))"
    statement = f"{sequence} INSERT INTO runs ({', '.join(names)}) SELECT {', '.join(values)} FROM numbers"  # noqa: S608 - our words
    with house.database.engine.begin() as connection:
        if not is_sqlite:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(statement), told)
    _gather(house)


def _delete(house: House, subject: str) -> None:
    with house.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM runs WHERE subject = :subject"), {"subject": subject})
    _gather(house)


def _gather(house: House) -> None:
    with house.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if house.url.startswith("sqlite"):
            connection.execute(text("ANALYZE"))
            return
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE runs"))


def _microseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)


@contextlib.contextmanager
def two_houses(kind: str, folder: Path) -> Iterator[tuple[House, House]]:
    """Yield two houses of one kind, each with a database of its own."""
    with contextlib.ExitStack() as stack:
        houses: list[House] = []
        for name in ("empty", "busy"):
            url = (
                f"sqlite:///{folder / name}.db"
                if kind == "sqlite"
                else stack.enter_context(postgres_server())
            )
            houses.append(stack.enter_context(_opened(url)))
        yield houses[0], houses[1]


@contextlib.contextmanager
def _opened(url: str) -> Iterator[House]:
    bell = RecordingBell()
    database = Database(url, routing=ROUTING, bell=bell)
    metadata.create_all(database.engine)
    clock: Any = database.now
    try:
        yield House(database, clock, bell, url)
    finally:
        database.dispose()
