# SPDX-License-Identifier: Apache-2.0
"""The tables of the reliable layer: own MetaData, no foreign key to anybody's product.

`runs` are promised executions, `attempts` their history, `leases` named leaderships,
`pauses` what is not rung, `workers` who says to be alive.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Microseconds(TypeDecorator[datetime]):
    """Microseconds since the epoch: they fit a signed 64-bit integer until the year 294247."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        del dialect
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time: timestamptz, and integer microseconds in SQLite.

    SQLite has no such type and compares text dates as text; integers compare and index as
    time does.
    """

    impl = DateTime(timezone=True).with_variant(_Microseconds(), "sqlite")
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: they are bugs that surface as lost hours."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive time reached the database; times are aware UTC")
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC whatever zone the database's session has."""
        del dialect
        return None if value is None else value.astimezone(UTC)


metadata = MetaData()

PENDING, STARTED, RETRY, WAITING = "PENDING", "STARTED", "RETRY", "WAITING"
SUCCESS, FAILURE, REVOKED = "SUCCESS", "FAILURE", "REVOKED"
STATES = (PENDING, STARTED, RETRY, WAITING, SUCCESS, FAILURE, REVOKED)
LIVE_STATES = (PENDING, STARTED, RETRY, WAITING)

# Partial indexes are used only where a query repeats their condition literally.
CLAIMABLE = text("state IN ('PENDING', 'RETRY')")
UNRUNG = text("state IN ('PENDING', 'RETRY') AND rung_at IS NULL AND NOT held")
RUNG = text("state IN ('PENDING', 'RETRY') AND rung_at IS NOT NULL")
LEASED = text("state = 'STARTED'")
PARKED = text("state = 'FAILURE'")

runs = Table(
    "runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task", String(120), nullable=False),
    Column("queue", String(60), nullable=False),
    Column("args", JSON, nullable=False),  # ids only, never personal data
    Column("key", String(200), unique=True),
    Column("coalesce_key", String(200)),
    Column("bundle_key", String(80)),
    Column("group_key", String(80)),
    Column("subject", String(80)),
    Column("tenant", String(80), nullable=False, server_default=""),
    Column("priority", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("spent", Integer, nullable=False, server_default="0"),
    Column("snoozes", Integer, nullable=False, server_default="0"),  # claims that left no attempt
    Column("due_at", UtcDateTime, nullable=False),
    Column("rung_at", UtcDateTime),
    Column("held", Boolean, nullable=False, server_default=false()),  # its group is paused; see pauses.py
    Column("lease_owner", String(120)),
    Column("lease_until", UtcDateTime),
    Column("waiting_for", String(80)),
    Column("result", JSON(none_as_null=True)),
    Column("error_code", String(60)),
    Column("error_detail", Text),
    Column("traceparent", String(60)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    CheckConstraint(
        "state IN ('PENDING', 'STARTED', 'RETRY', 'WAITING', 'SUCCESS', 'FAILURE', 'REVOKED')",
        name="runs_state",
    ),
    CheckConstraint("state <> 'STARTED' OR lease_until IS NOT NULL", name="runs_started_has_lease"),
)
Index(
    "runs_due",
    runs.c.queue,
    runs.c.priority,
    runs.c.tenant,
    runs.c.due_at,
    sqlite_where=UNRUNG,
    postgresql_where=UNRUNG,
)
Index("runs_rung", runs.c.queue, runs.c.rung_at, sqlite_where=RUNG, postgresql_where=RUNG)
Index("runs_leased", runs.c.lease_until, sqlite_where=LEASED, postgresql_where=LEASED)
Index("runs_parked", runs.c.task, runs.c.error_code, sqlite_where=PARKED, postgresql_where=PARKED)
Index(
    "runs_coalesce",
    runs.c.coalesce_key,
    unique=True,
    sqlite_where=CLAIMABLE,
    postgresql_where=CLAIMABLE,
)
Index("runs_subject", runs.c.subject)
_GROUPED = text("group_key IS NOT NULL")
Index(
    "runs_group",
    runs.c.group_key,
    runs.c.task,
    runs.c.state,
    runs.c.held,
    sqlite_where=_GROUPED,
    postgresql_where=_GROUPED,
)
_BUNDLED = text("bundle_key IS NOT NULL AND state IN ('PENDING', 'RETRY')")
Index("runs_bundle", runs.c.bundle_key, runs.c.due_at, sqlite_where=_BUNDLED, postgresql_where=_BUNDLED)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String(36), nullable=False),
    Column("number", Integer, nullable=False),
    Column("owner", String(120)),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("outcome", String(10), nullable=False),
    Column("error_code", String(60)),
    Column("error_detail", Text),
    Column("evidence", JSON(none_as_null=True)),
    Column("next_due_at", UtcDateTime),  # not before this the next attempt begins; kept for the audit
    PrimaryKeyConstraint("run_id", "number"),
    CheckConstraint(
        "outcome IN ('success', 'retry', 'snoozed', 'failure', 'ambiguous', 'lost', 'fenced')",
        name="attempts_outcome",
    ),
)

# What was recorded lately is found without looking at all history (the sealing of the audit trail).
Index("attempts_finished", attempts.c.finished_at)

leases = Table(
    "leases",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("holder", String(120), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("detail", JSON(none_as_null=True)),
)

pauses = Table(
    "pauses",
    metadata,
    Column("scope", String(10), nullable=False),
    Column("name", String(80), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("resumed_at", UtcDateTime),  # of a group whose runs are still being released
    PrimaryKeyConstraint("scope", "name"),
    CheckConstraint("scope IN ('queue', 'group')", name="pauses_scope"),
)

workers = Table(
    "workers",
    metadata,
    Column("node", String(120), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pool", String(60), nullable=False),
    Column("queues", JSON, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("host", String(120), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("node", "pid"),
)
