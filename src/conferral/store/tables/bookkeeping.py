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
    Column("created_at", UtcDateTime, nullable=False),
)
