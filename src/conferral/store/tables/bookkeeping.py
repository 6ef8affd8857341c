# SPDX-License-Identifier: Apache-2.0
"""What is kept beside: reports, answers to repeated requests, the audit log."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Column,
    Date,
    ForeignKey,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)

from conferral.reliable.tables import UtcDateTime
from conferral.store.tables.base import metadata

reports = Table(
    "reports",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("day", Date, nullable=False),
    Column("content", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("organisation_id", "day"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("organisation_id", String(40), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("operation", String(120), nullable=False),  # method and path
    Column("key", String(255), nullable=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", JSON, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    PrimaryKeyConstraint("organisation_id", "mode", "operation", "key"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("organisation_id", String(40)),
    Column("actor", String(80), nullable=False),
    Column("action", String(60), nullable=False),
    Column("subject", String(80)),
    Column("request_id", String(80)),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

# The audit trail, `attempts` and `audit_log`, is sealed in blocks: a block's hash is SHA-256 of its
# predecessor's hash and the digests of its rows. What was sealed is never updated; the seals stand beside it.
audit_blocks = Table(
    "audit_blocks",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3 …
    Column("previous", LargeBinary(32), nullable=False),  # 32 zero bytes before the first
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("rows", Integer, nullable=False),
    Column("through", UtcDateTime, nullable=False),  # what was recorded until then was looked at
    Column("sealed_at", UtcDateTime, nullable=False),
)

audit_seals = Table(
    "audit_seals",
    metadata,
    # The key of an attempt; a line of the audit log is ("audit_log", its id).
    Column("run_id", String(36), nullable=False),
    Column("number", Integer, nullable=False),
    Column("block", ForeignKey("audit_blocks.number"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),  # so the chain holds when retention removes the row
    Column("forgotten_at", UtcDateTime),  # the row was removed on purpose, by the commit that says so here
    PrimaryKeyConstraint("run_id", "number"),
    UniqueConstraint("block", "position"),
)
