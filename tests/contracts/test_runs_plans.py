# SPDX-License-Identifier: Apache-2.0
"""Finished rows cost nothing: every statement of the hot path uses an index that holds live rows only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Self

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from conferral.reliable import destinations, pauses, rescue, runs, status
from conferral.reliable.dispatcher import Dispatcher
from conferral.reliable.holding import Holding
from conferral.reliable.ids import new_run_id
from conferral.reliable.promises import BULK, promise
from conferral.reliable.tables import runs as table
from conferral.reliable.urgency import Queue
from support.reliable_database import LEASE_SECONDS, ROUTING, House, house_on

FINISHED = 20_000
WAITING = 200


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house with many finished rows and few live ones, its statistics gathered."""
    with house_on(request.param, tmp_path_factory.mktemp("plans")) as found:
        _fill(found)
        yield found


def _fill(house: House) -> None:
    now = house.time()
    common = {"task": "fast.do", "queue": "fast", "args": [], "priority": BULK, "created_at": now}
    finished = [
        common
        | {"id": new_run_id(), "state": "SUCCESS", "due_at": now, "tenant": f"t{n % 7}", "key": f"k{n}"}
        | {"group_key": "batch"}
        | {"coalesce_key": f"c{n % 50}", "bundle_key": "relay", "rung_at": now}
        for n in range(FINISHED)
    ]
    with house.database.transaction() as session:
        session.execute(insert(table), finished)
    for n in range(WAITING):
        house.promise(
            priority=BULK if n % 2 else 0,
            tenant=f"t{n % 7}",
            bundle_key="relay",
            coalesce=f"c{n % 50}" if n < 50 else None,
        )
    house.claim(house.promise())
    with house.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


class Explained:
    """Collects the plan of every statement that touches `runs`."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.plans: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        event.listen(self._house.database.engine, "before_cursor_execute", self._explain)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._house.database.engine, "before_cursor_execute", self._explain)

    def _explain(
        self, connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        if many or not re.search(r"\bruns\b", statement) or statement.startswith("INSERT"):
            return
        is_sqlite = self._house.url.startswith("sqlite")
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{statement}", parameters)
        plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
        cursor.close()
        self.plans.append((statement, plan))


def _is_full_scan(plan: str) -> bool:
    """Return whether a plan reads all of `runs`, finished rows included."""
    of_live_rows = r"runs_(due|rung|leased|parked|coalesce|bundle)"
    scans = (rf"SCAN runs(?! USING (COVERING )?INDEX {of_live_rows})", r"Seq Scan on runs")
    return any(re.search(scan, plan) for scan in scans)


def _claim(_: House, session: Session) -> None:
    ids = [new_run_id() for _ in range(8)]
    runs.claim(session, ids[:1], owner="x", lease_seconds=1, task="fast.do")
    runs.claim(session, ids, owner="x", lease_seconds=1, task="fast.do")


def _promise(_: House, session: Session) -> None:
    promise(session, "fast.do", [], key="k1")
    promise(session, "fast.do", [], coalesce="c1")


def _rescue(_: House, session: Session) -> None:
    rescue.orphans(session)
    rescue.rescue_expired(session, lambda _: None)
    rescue.rescue_gone(session, [new_run_id()], lambda _: None)


def _defer(house: House, session: Session) -> None:
    destinations.defer(session, "relay", house.time() - timedelta(days=1), "x")
    destinations.recall(session, "relay", "x", house.time())
    runs.successor_of(session, "c1")
    runs.unring(session, [new_run_id()])


def _pause(_: House, session: Session) -> None:
    pauses.pause(session, "group", "batch")
    pauses.move_group(session, "batch")
    pauses.resume(session, "group", "batch")
    pauses.move_group(session, "batch")


def _choose(house: House, session: Session) -> None:
    Queue(session, "fast", house.time(), ["held"]).most_urgent(64)


def _count(house: House, session: Session) -> None:
    status.queue_status(session, "fast", house.time())


@pytest.mark.parametrize("hot", [_claim, _promise, _rescue, _defer, _pause, _choose, _count])
def test_no_statement_reads_finished_rows(house: House, hot: Callable[[House, Session], None]) -> None:
    """What is done twice a second or once a run goes through an index of live rows or by key."""
    with Explained(house) as explained, house.database.transaction() as session:
        hot(house, session)
        session.rollback()
    assert explained.plans
    for statement, plan in explained.plans:
        assert not _is_full_scan(plan), f"{statement}\n{plan}"


def test_pass_of_the_dispatcher_reads_no_finished_rows(house: House) -> None:
    """A whole pass: rescue, counting, choosing, marking, ringing again; and the heartbeat."""

    class Ringer(Dispatcher):
        def _length(self, _: str) -> int:
            return 0

    ringer = Ringer(None, house.context(ring_again_seconds=-1), {}, "x")  # type: ignore[arg-type]
    ringer._bell = house.bell
    holding = Holding(house.context())
    with house.database.transaction() as session:
        holding.add(runs.claim(session, [_live(session)], owner=house.owner, lease_seconds=LEASE_SECONDS))
    with Explained(house) as explained:
        ringer.sweep()
        ringer.sweep()
        holding.renew()
    assert len(explained.plans) > len(ROUTING.queues)
    for statement, plan in explained.plans:
        assert not _is_full_scan(plan), f"{statement}\n{plan}"


def _live(session: Session) -> str:
    return str(session.execute(text("SELECT id FROM runs WHERE state = 'PENDING' LIMIT 1")).scalar_one())
