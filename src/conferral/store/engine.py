# SPDX-License-Identifier: Apache-2.0
"""The database: one engine a process, opened after fork; write transactions and read views.

SQLite (WAL, BEGIN IMMEDIATE) and PostgreSQL (READ COMMITTED) differ here and in the
dispatcher's locks, and nowhere else. No transaction spans I/O with the outside world.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from conferral.reliable import runs
from conferral.reliable.bell import Bell
from conferral.reliable.outbox import Outbox, Terms, session_info, take_outbox
from conferral.reliable.routing import Routing

BUSY_TIMEOUT_MS = 15_000  # waiting for SQLite's writer reached 4 s; 10 s heartbeat + 15 s < 30 s lease
STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 5_000
CONNECT_SECONDS = 5
MIGRATION_LOCK = 0x434F4E46  # "CONF": two hosts that migrate at once take turns
CLOCK_EVERY_SECONDS = 60.0  # how often the offset to PostgreSQL's clock is measured

_SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # NORMAL may lose the last commit at power loss: between effect and record
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "foreign_keys=ON",
    "secure_delete=ON",  # erased people leave no bytes in free pages
)


class Database:
    """Transactions on one database, with the bells that follow their commits.

    Args:
        url: `sqlite:///…`, `postgresql://…` or `postgres://…` (both are read as psycopg 3).
        routing: what promises made in its sessions are routed by.
        bell: rings after commits; None in processes that only read or migrate.
        pool_size: connections; slots + 2 is right.
        application: shown by PostgreSQL in its list of connections.
    """

    def __init__(
        self,
        url: str,
        *,
        routing: Routing,
        bell: Bell | None = None,
        pool_size: int = 5,
        application: str = "conferral",
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.engine = open_engine(url, pool_size=pool_size, application=application)
        self._bell = bell
        self._offset = timedelta(0)
        self._offset_until = 0.0
        self._clock = clock
        self._info = session_info(Terms(routing, self.now))

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a write transaction; commit at the end, then ring; roll back on any error."""
        session = Session(self.engine, info=dict(self._info), expire_on_commit=False)
        with session:
            with session.begin():
                yield session
            outbox = take_outbox(session)
        if outbox and self._bell is not None:
            self._deliver(self._bell, outbox)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open a read-only view; a write in it fails at once."""
        with (
            self.engine.connect().execution_options(
                conferral_read_only=True, postgresql_readonly=True
            ) as connection,
            Session(connection, info=dict(self._info), expire_on_commit=False) as session,
        ):
            yield session

    @contextmanager
    def still(self) -> Iterator[Session]:
        """Open a read-only view in which all statements see the same moment; for seconds, not minutes.

        SQLite's readers always do. On PostgreSQL it holds back the cleaning of old row versions.
        """
        level = "REPEATABLE READ" if self.engine.dialect.name == "postgresql" else "SERIALIZABLE"
        with (
            self.engine.connect().execution_options(
                conferral_read_only=True, postgresql_readonly=True, isolation_level=level
            ) as connection,
            Session(connection, info=dict(self._info), expire_on_commit=False) as session,
        ):
            yield session

    def now(self) -> datetime:
        """Return the time all hosts share: PostgreSQL's clock, or this host's on SQLite."""
        if self._clock is not None:
            return self._clock()
        if self.engine.dialect.name == "postgresql" and time.monotonic() > self._offset_until:
            self._measure_offset()
        return datetime.now(UTC) + self._offset

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def vacuum(self) -> None:
        """Give deleted bytes back: truncate the WAL, or vacuum."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            is_sqlite = self.engine.dialect.name == "sqlite"
            connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)" if is_sqlite else "VACUUM"))

    def _measure_offset(self) -> None:
        with self.engine.connect() as connection:
            before = datetime.now(UTC)
            theirs: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            after = datetime.now(UTC)
        self._offset = theirs - (before + (after - before) / 2)
        self._offset_until = time.monotonic() + CLOCK_EVERY_SECONDS

    def _deliver(self, bell: Bell, outbox: Outbox) -> None:
        unrung = bell.ring(outbox.rings)
        bell.show(outbox.shown)
        if unrung:
            # The dispatcher rings them within a sweep instead of after its long wait. Our caller
            # has committed: if this fails, it must not look as if that had.
            with (
                suppress(SQLAlchemyError),
                Session(self.engine, info=dict(self._info)) as session,
                session.begin(),
            ):
                runs.unring(session, unrung)


def open_engine(url: str, *, pool_size: int = 5, application: str = "conferral") -> Engine:
    """Return an engine with our settings for the URL's database."""
    parsed = normalise(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    options = (
        f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS} "
        f"-c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_MS} -c synchronous_commit=on"
    )
    return create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=2,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": application,
            "options": options,
            "keepalives_idle": 30,
        },
    )


def lock_for_migration(connection: Connection) -> None:
    """Let one migration run at a time, for as long as it takes; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})


def limit_lock_wait(session: Session, seconds: float) -> None:
    """Let this transaction wait for a lock no longer than this; SQLite has one writer and one queue."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{seconds * 1000:.0f}ms"}
        )


def normalise(url: str) -> URL:
    """Read `postgres://` and `postgresql://` as psycopg 3.

    >>> normalise("postgres://u@h/d").drivername
    'postgresql+psycopg'
    """
    if url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    parsed = make_url(url)
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _open_sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        # The driver's own BEGIN is switched off: it begins deferred, and a deferred
        # transaction that writes later fails with "database is locked" whatever the timeout.
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        options = connection.get_execution_options()
        read_only = options.get("conferral_read_only", False)
        connection.exec_driver_sql(f"PRAGMA query_only={'ON' if read_only else 'OFF'}")
        if options.get("isolation_level") == "AUTOCOMMIT":
            return  # SQLAlchemy tells of a beginning here, too; a checkpoint in a transaction is refused
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
