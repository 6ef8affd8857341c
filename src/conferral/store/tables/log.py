# SPDX-License-Identifier: Apache-2.0
"""The transparency logs: leaves, tiles, checkpoints."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from conferral.reliable.tables import UtcDateTime
from conferral.store.tables.base import metadata

logs = Table(
    "logs",
    metadata,
    Column("log", String(10), primary_key=True),  # live, test
    Column("origin", String(300), nullable=False, unique=True),
    Column("public_key", LargeBinary(32), nullable=False),
    Column("sealed_private", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("halted", String(30)),
    Column("signed_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
)

leaves = Table(
    "leaves",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("log", String(10), nullable=False),
    Column("credential_id", ForeignKey("credentials.id")),  # null: a document signed for other software
    Column("revision", Integer, nullable=False),
    Column("entry", LargeBinary(32), nullable=False),
    Column("leaf_index", Integer),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("credential_id", "revision"),
    UniqueConstraint("log", "entry"),
    UniqueConstraint("log", "leaf_index"),
)
_UNSEQUENCED = text("leaf_index IS NULL")
Index(
    "leaves_unsequenced",
    leaves.c.log,
    leaves.c.id,
    sqlite_where=_UNSEQUENCED,
    postgresql_where=_UNSEQUENCED,
)

log_tiles = Table(
    "log_tiles",
    metadata,
    Column("log", String(10), nullable=False),
    Column("level", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("log", "level", "number"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("log", String(10), nullable=False),
    Column("size", Integer, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("log", "size"),
)
