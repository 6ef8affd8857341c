# SPDX-License-Identifier: Apache-2.0
"""Freeze a process where it hurts us only, not SQLite: between its transactions.

A process stopped inside a SQLite write transaction keeps the one write lock there is, and
every writer waits until it goes on or is ended (the supervisor does that after 60 s). That is
SQLite's nature and no statement about leases, so a test that is about leases freezes again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError

PATIENCE_SECONDS = 20.0
_LOOK_SECONDS = 0.5


def freeze(database_url: str, *pids: int) -> None:
    """Send SIGSTOP to processes at a moment when none of them holds the database's write lock.

    With PostgreSQL any moment will do: a frozen client holds row locks at most.
    """
    stop, go_on = _sender(pids, signal.SIGSTOP), _sender(pids, signal.SIGCONT)
    stop()
    if make_url(database_url).get_backend_name() != "sqlite":
        return
    deadline = time.monotonic() + PATIENCE_SECONDS
    engine = _probe(database_url)
    try:
        while not _writable(engine):
            go_on()
            if time.monotonic() > deadline:
                raise AssertionError(f"processes {pids} held the database at every look")
            time.sleep(0.02)
            stop()
    finally:
        engine.dispose()


def _sender(pids: Sequence[int], number: int) -> Callable[[], None]:
    def send() -> None:
        for pid in pids:
            os.kill(pid, number)

    return send


def _probe(database_url: str) -> Engine:
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")

    @event.listens_for(engine, "connect")
    def _patience(connection: object, _: object) -> None:
        connection.execute(f"PRAGMA busy_timeout={int(_LOOK_SECONDS * 1000)}")  # type: ignore[attr-defined]

    return engine


def _writable(engine: Engine) -> bool:
    try:
        with engine.connect() as connection:
            connection.execute(text("BEGIN IMMEDIATE"))
            connection.execute(text("ROLLBACK"))
    except OperationalError:
        return False
    return True
