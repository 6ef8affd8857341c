# SPDX-License-Identifier: Apache-2.0
"""The database is the truth: gone, deaf after a commit, refusing one row, without room on its disk.

Where it cannot be asked nothing is done: no effect without a claim, no 202 without a row, and never a 500
for what is a matter of waiting.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select

from conferral.reliable.tables import runs
from conferral.store.tables import credentials
from support import chaos_house
from support.chaos_client import Accepted, wanted
from support.chaos_curses import PLACES, cursed, execute
from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_measures import load
from support.chaos_processes import until
from support.postgres import PostgresProcess, postgres_process
from support.small_disk import small_disk

AWAY_SECONDS, AWAY_LONG_SECONDS = 3.0, 30.0
LOCKED_SECONDS, LOCKED_LONG_SECONDS = 6.0, 30.0
FINAL_SECONDS = 180.0
"""A lease of what was cut, one rescue, and the longest retry of a short outage."""
SAID_SECONDS = 20.0
"""A fault is seen by the API, or by /readyz, within this."""
# What is said of a database that is away; the rows say that nothing was lost.
GONE = ("database_failed", "run_raised", "OperationalError", "failure_not_recorded", "request_raised")
FULL = ("No space left", "storage_full", "MISCONF", "ENOSPC", "ResponseError", "Error in timer")
UNAFFECTED_SECONDS = 30.0
"""Neighbours of a row that is refused are issued within this; its own patience ends much later."""
GIVEN_UP_SECONDS = 60.0
SCALE = "0.1"
"""Where the end of a run's patience is the question: all its retries, in seconds instead of minutes."""
AT_THE_DOOR = frozenset({"credentials", "runs"})
OwnHouse = Callable[..., AbstractContextManager[House]]


@pytest.fixture(scope="module")
def fragile(
    database: str, seed: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[House, PostgresProcess | None]]:
    """Yield a house whose PostgreSQL can be crashed and cut; SQLite's file needs no house of its own."""
    if database == "sqlite":
        yield request.getfixturevalue("shared_house"), None
        return
    with postgres_process() as server:
        folder = tmp_path_factory.mktemp("fragile") / "house"
        with chaos_house.house(
            database, folder, seed=seed, proxied=("database",), database_url=server.url
        ) as house:
            yield house, server


def test_db_gone(fragile: tuple[House, PostgresProcess | None], long: bool) -> None:
    """Locked, cut, crashed: the API waits or answers 503 with Retry-After, and everything heals alone."""
    house, server = fragile
    house.until_ready()
    ledger = Ledger(house, "db_gone")
    with load(house):
        time.sleep(1.0)
        with locked(house, LOCKED_LONG_SECONDS if long else LOCKED_SECONDS):
            told(house)
        if server is not None and house.database_proxy is not None:
            for _ in range(5 if long else 2):
                house.database_proxy.cut()
                time.sleep(1.0)
            server.crash()
            until(lambda: told(house) == 503, SAID_SECONDS)
            before = effects(house)
            time.sleep(AWAY_LONG_SECONDS if long else AWAY_SECONDS)
            assert effects(house) == before, "an effect without a claim"
            server.start()
    house.until_ready(seconds=90.0)
    house.until_final(ledger.accepted, FINAL_SECONDS)
    ledger.finish(expected=GONE)
    assert set(ledger.answers()) <= {"202", "409", "503", "RemoteDisconnected"}, ledger.answers()


@pytest.mark.only_on("postgresql")
def test_db_answer_lost(fragile: tuple[House, PostgresProcess | None], long: bool) -> None:
    """COMMIT arrives and its answer does not: the state is read again before anything is repeated."""
    house, _ = fragile
    house.until_ready()
    assert house.database_proxy is not None
    ledger = Ledger(house, "db_answer_lost")
    before, losses = house.database_proxy.lost, 200 if long else 12
    with load(house, pause=0.05):
        for _ in range(losses):
            house.database_proxy.lose_answer(b"COMMIT")
            time.sleep(0.3)
    house.database_proxy.heal()
    house.until_final(ledger.accepted, FINAL_SECONDS)
    lost = house.database_proxy.lost - before
    account = ledger.finish(expected=GONE)
    print(f"\n{lost} answers to COMMIT were lost; {account.repeated} repeats on the wire")  # noqa: T201
    assert lost >= losses // 2
    assert set(ledger.answers()) <= {"202", "409", "503"}, ledger.answers()


def test_one_insert_fails(own_house: OwnHouse) -> None:
    """One recipient's row is refused, on each table in turn: tried again, then said; nobody else waits."""
    with own_house(CONFERRAL_RETRY_SCALE=SCALE) as house:
        ledger = Ledger(house, "one_insert_fails")
        for place in PLACES:
            email, key = f"cursed-{place.replace(' ', '-')}@example.com", f"cursed-{place}"
            with cursed(house, place, email):
                status, answer, _ = ask(house, email, key)
                house.until_final(house.issue(3), UNAFFECTED_SECONDS)
                if place in AT_THE_DOOR:
                    assert (status, answer["code"]) == (500, "internal"), place
                    assert not about(house, email), "refused, and yet there"
                else:
                    assert status == 202, (place, answer)
                    assert_given_up(house, answer["task_id"], place)
                assert not [mail for mail in house.mails.seen() if email in mail["to"]], place
            if place in AT_THE_DOOR:
                assert ask(house, email, key)[0] == 202
            else:
                assert house.installation.run("dead", "replay", answer["task_id"]).returncode == 0
            house.until_final(ledger.accepted, FINAL_SECONDS)
        account = ledger.finish(expected=("request_raised", "run_raised", "leaf_refused", "chaos"))
        assert account.repeated == 0


def test_disk_full(database: str, seed: int, tmp_path: Path, long: bool) -> None:
    """A disk without room: 507 or a wait, readiness is red, it heals alone, and nothing is claimed stored."""
    with (
        small_disk(tmp_path / "disk") as disk,
        chaos_house.house(database, tmp_path / "house", seed=seed, data=disk.folder / "data") as house,
    ):
        ledger = Ledger(house, "disk_full")
        house.until_final(house.issue(2), FINAL_SECONDS)
        if database == "sqlite":  # its log has room of its own until it is cut
            execute(house, "PRAGMA wal_checkpoint(TRUNCATE)", alone=True)
        until(lambda: disk.fill() or readiness(house) == 503, SAID_SECONDS)
        began, statuses = time.monotonic(), set()
        while time.monotonic() - began < (30.0 if long else 4.0):
            disk.fill()  # what somebody gave back meanwhile
            status, answer, headers = ask(house)
            statuses.add(status)
            assert status in {202, 503, 507}, answer
            assert status == 202 or int(headers["Retry-After"]) > 0
            time.sleep(0.2)
        assert readiness(house) == 503
        disk.make_room()
        until(lambda: readiness(house) == 200, SAID_SECONDS)
        house.until_ready(seconds=90.0)
        house.issue(2)
        house.until_final(ledger.accepted, FINAL_SECONDS)
        print(f"\nanswers on a full disk: {sorted(statuses)}")  # noqa: T201 -- the figure
        ledger.finish(expected=(*GONE, *FULL))
        assert database == "postgresql" or 507 in statuses, statuses


def ask(house: House, email: str | None = None, key: str | None = None) -> tuple[int, Any, dict[str, str]]:
    """Ask once for a credential; a 202 is kept as promised. Return status, JSON and headers."""
    key, began = key or f"ask-{time.time_ns()}", time.time()
    status, answer, headers = house.client.call(
        "POST", "/v1/credentials/issue", wanted(0, email=email), key=key
    )
    if status == 202:
        house.client.accepted.append(
            Accepted(answer["credential_id"], answer["task_id"], key, began, time.time(), 1)
        )
    return status, answer, headers


def told(house: House) -> int:
    """Ask once; return the status, which is 202, 503 with Retry-After, or 0 (cut)."""
    status, answer, headers = ask(house)
    assert status in {0, 202, 503}, answer
    assert status != 503 or int(headers["Retry-After"]) > 0
    return status


def readiness(house: House) -> int:
    """Return the status of /readyz."""
    return house.client.call("GET", "/readyz")[0]


@contextlib.contextmanager
def locked(house: House, seconds: float) -> Iterator[None]:
    """Let another program hold the whole database (SQLite) or the table that everything writes."""
    began = time.monotonic()
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK_SQLITE if house.kind == "sqlite" else LOCK_POSTGRESQL, locator(house)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"locked\n"
        yield
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    finally:
        holder.stdin.close()
        holder.wait(30)
        holder.stdout.close()


def locator(house: House) -> str:
    """Return the file of SQLite, or the address of PostgreSQL past any proxy."""
    return str(make_url(house.database_url).database) if house.kind == "sqlite" else house.database_url


LOCK_SQLITE = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
held.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
held.execute("ROLLBACK")
"""
LOCK_POSTGRESQL = """
import psycopg, sys
with psycopg.connect(sys.argv[1]) as held:
    held.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
    print("locked", flush=True)
    sys.stdin.read()
    held.rollback()
"""


def effects(house: House) -> int:
    """Return how many effects the peers have seen."""
    return len(house.mails.seen()) + len(house.hooks.seen())


def about(house: House, email: str) -> Sequence[Any]:
    """Return the credentials of one recipient."""
    return house.rows(select(credentials.c.id).where(credentials.c.recipient_email == email))


def assert_given_up(house: House, run_id: str, place: str) -> None:
    """Wait until a run was tried again, and then parked with its reason."""

    def state() -> tuple[str, str | None]:
        (row,) = house.rows(select(runs.c.state, runs.c.error_code).where(runs.c.id == run_id))
        return row.state, row.error_code

    until(lambda: state()[0] == "FAILURE", GIVEN_UP_SECONDS, lambda: (place, state()))
    assert state()[1] == "internal", (place, state())
    assert len(house.outcomes(run_id)) > 1, f"{place}: it was not tried again"
