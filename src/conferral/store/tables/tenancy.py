# SPDX-License-Identifier: Apache-2.0
"""Who issues: organisations, people, sessions, keys, templates."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
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
from conferral.store.tables.base import MODES, metadata, one_of

organisations = Table(
    "organisations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("slug", String(60), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("url", String(300)),
    Column("reply_to", String(254)),
    Column("suspended", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", UtcDateTime, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("password_hash", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("role", String(20), nullable=False),
    PrimaryKeyConstraint("organisation_id", "user_id"),
    CheckConstraint(one_of("role", ("owner", "manager", "viewer")), name="members_role"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),  # SHA-256 of the cookie
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("csrf", String(60), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False, index=True),
    Column("mode", String(4), nullable=False),
    Column("handle", String(8), nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("last4", String(4), nullable=False),
    Column("name", String(100), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    CheckConstraint(one_of("mode", MODES), name="api_keys_mode"),
)

issuers = Table(  # the DID of an organisation and mode, frozen by its first signature
    "issuers",
    metadata,
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("did", String(400), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("organisation_id", "mode"),
)

# One key of an issuer is current: it signs. A retired key no longer signs: its private half is destroyed, its
# public half is published for ever, because what it signed stays valid. A withdrawn key is retired, too, and
# no longer published: somebody else may have signed with it since `compromised_at`.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("number", Integer, nullable=False),
    Column("public_key", LargeBinary(32), nullable=False),
    Column("sealed_private", LargeBinary),  # destroyed in the commit that retires the key
    Column("created_at", UtcDateTime, nullable=False),
    Column("retired_at", UtcDateTime),
    Column("withdrawn_at", UtcDateTime),  # when we learned of the compromise and acted
    Column("compromised_at", UtcDateTime),  # since when others may have signed with it, as a person judged
    UniqueConstraint("organisation_id", "mode", "number"),
    CheckConstraint("retired_at IS NULL OR sealed_private IS NULL", name="signing_keys_retired_is_destroyed"),
    CheckConstraint(
        "(withdrawn_at IS NULL) = (compromised_at IS NULL)"
        " AND (withdrawn_at IS NULL OR retired_at IS NOT NULL)",
        name="signing_keys_withdrawn_is_retired",
    ),
)
_CURRENT = text("retired_at IS NULL")
Index(
    "signing_keys_current",
    signing_keys.c.organisation_id,
    signing_keys.c.mode,
    unique=True,
    sqlite_where=_CURRENT,
    postgresql_where=_CURRENT,
)

templates = Table(
    "templates",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("achievement_id", String(60), nullable=False),  # urn:uuid:…, the same in all versions
    Column("current_version_id", String(40), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("organisation_id", "name"),
)

template_versions = Table(
    "template_versions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("template_id", ForeignKey("templates.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("design", String(60), nullable=False),
    Column("theme", JSON, nullable=False),
    Column("design_version", String(64), nullable=False),  # SHA-256 of design source, theme, assets
    Column("description", Text, nullable=False),
    Column("criteria", Text, nullable=False),
    Column("status_purpose", String(12), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("template_id", "number"),
)
