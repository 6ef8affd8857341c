# SPDX-License-Identifier: Apache-2.0
"""What is told to whom: events, endpoints, deliveries, the captured mailbox."""

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
)

from conferral.reliable.tables import UtcDateTime
from conferral.store.tables.base import metadata, one_of

events = Table(
    "events",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("type", String(40), nullable=False),
    Column("credential_id", String(40)),
    Column("sequence", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),  # frozen bytes: what every endpoint gets, always
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("credential_id", "sequence"),
)
Index("events_listed", events.c.organisation_id, events.c.mode, events.c.created_at)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("url", String(500), nullable=False),
    Column("event_types", JSON, nullable=False),  # empty: all but email.sent
    Column("sealed_secrets", JSON, nullable=False),  # hex, newest first
    Column("state", String(10), nullable=False),
    Column("temporary", Boolean, nullable=False),  # made by `webhooks listen`
    Column("failures", Integer, nullable=False),
    Column("opened", Integer, nullable=False),  # how often the breaker opened in a row
    Column("closed_until", UtcDateTime),
    Column("last_success_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    CheckConstraint(one_of("state", ("enabled", "disabled")), name="endpoints_state"),
)
Index("endpoints_listed", endpoints.c.organisation_id, endpoints.c.mode)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("channel", String(10), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("credential_id", ForeignKey("credentials.id")),
    Column("report_id", String(40)),
    Column("event_id", ForeignKey("events.id")),
    Column("endpoint_id", ForeignKey("endpoints.id")),
    Column("run_id", String(36)),
    Column("recipient", String(254)),
    Column("locale", String(20)),
    Column("message_id", String(200)),
    Column("state", String(10), nullable=False),
    Column("possible_duplicate", Boolean, nullable=False),
    Column("armed_attempt", Integer),
    Column("failure_code", String(60)),
    Column("created_at", UtcDateTime, nullable=False),  # also the message's Date
    Column("sent_at", UtcDateTime),
    UniqueConstraint("message_id"),
    UniqueConstraint("event_id", "endpoint_id"),
    CheckConstraint(one_of("channel", ("email", "webhook")), name="deliveries_channel"),
    CheckConstraint(one_of("state", ("pending", "sent", "failed", "held")), name="deliveries_state"),
)
Index("deliveries_of_credential", deliveries.c.credential_id)
Index("deliveries_of_run", deliveries.c.run_id)

answers = Table(  # what an endpoint said: beside the delivery, because it may quote a person
    "answers",
    metadata,
    Column("delivery_id", ForeignKey("deliveries.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Integer),
    Column("duration_ms", Integer, nullable=False),
    Column("snippet", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("delivery_id", "attempt"),
)

channels = Table(  # one row per SMTP configuration: its breaker
    "channels",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("opened", Integer, nullable=False),
    Column("closed_until", UtcDateTime),
    Column("code", String(60)),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("address_hmac", LargeBinary(32), nullable=False),  # survives erasure, names nobody
    Column("reason", String(40), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("organisation_id", "address_hmac"),
)

mailbox = Table(
    "mailbox",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", String(40), nullable=False),
    Column("delivery_id", String(40), nullable=False),
    Column("message_id", String(200), nullable=False),
    Column("recipient", String(254), nullable=False),
    Column("subject", String(400), nullable=False),
    Column("source", LargeBinary, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
)
Index("mailbox_listed", mailbox.c.organisation_id, mailbox.c.received_at)
