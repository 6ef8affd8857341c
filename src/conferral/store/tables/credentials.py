# SPDX-License-Identifier: Apache-2.0
"""What is issued: batches, status lists, credentials."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Date,
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

from conferral.domain import credential
from conferral.reliable.tables import UtcDateTime
from conferral.store.tables.base import MODES, metadata, one_of

batches = Table(
    "batches",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("template_version_id", ForeignKey("template_versions.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("state", String(12), nullable=False),
    Column("total", Integer, nullable=False),
    Column("send_email", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    CheckConstraint(
        one_of("state", ("validating", "ready", "running", "paused", "completed", "cancelled")),
        name="batches_state",
    ),
)
Index("batches_listed", batches.c.organisation_id, batches.c.mode, batches.c.created_at)

batch_rows = Table(
    "batch_rows",
    metadata,
    Column("batch_id", ForeignKey("batches.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("content", JSON, nullable=False),
    PrimaryKeyConstraint("batch_id", "number"),
)

status_lists = Table(
    "status_lists",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),  # /status/{number}
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("purpose", String(12), nullable=False),
    Column("permutation", LargeBinary, nullable=False),  # the order in which indices are given out
    Column("next", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("signed", LargeBinary),  # the served bytes
    Column("etag", String(70)),
    Column("signed_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("status_lists_open", status_lists.c.organisation_id, status_lists.c.mode, status_lists.c.purpose)

credentials = Table(
    "credentials",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("state", String(12), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("template_version_id", ForeignKey("template_versions.id"), nullable=False),
    Column("batch_id", ForeignKey("batches.id")),
    Column("batch_row", Integer),
    Column("external_id", String(200)),
    Column("content_digest", LargeBinary(32), nullable=False),  # tells "again" from "other content"
    Column("run_id", String(36)),  # the issue run; null until somebody asks to issue
    Column("send_email", Boolean, nullable=False),
    # Fixed at admission: a repeat signs the same bytes.
    Column("vc_id", String(60), nullable=False, unique=True),
    Column("token", String(22), nullable=False, unique=True),
    Column("salt", String(32), nullable=False),
    Column("recipient_name", String(400), nullable=False),
    Column("recipient_email", String(254), nullable=False),
    Column("recipient_locale", String(20), nullable=False),
    Column("fields", JSON, nullable=False),
    Column("issued_on", Date, nullable=False),
    Column("expires_on", Date),
    Column("status_list_number", ForeignKey("status_lists.number"), nullable=False),
    Column("status_index", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),  # also proof.created of revision 1
    Column("supersedes", String(40)),  # the credential that this one replaces as soon as it is issued
    # Recorded once, when signed; signing again (a withdrawn key) moves the old values to `revisions`.
    Column("base_sha384", LargeBinary(48)),
    Column("base_length", Integer),
    Column("pdf_sha256", String(64)),
    Column("vc_sha256", String(64)),
    Column("verification_method", String(500)),
    Column("engine", String(40)),
    Column("fonts_sha256", String(64)),
    Column("issued_at", UtcDateTime),
    Column("failure_code", String(60)),
    Column("failure_detail", Text),
    # The last change of its standing: revoked, suspended, reinstated or superseded.
    Column("status_reason", String(40)),  # a code, never a text that somebody typed
    Column("status_changed_at", UtcDateTime),
    Column("superseded_by", String(40)),
    UniqueConstraint("organisation_id", "mode", "external_id"),
    UniqueConstraint("batch_id", "batch_row"),
    UniqueConstraint("status_list_number", "status_index"),
    CheckConstraint(one_of("mode", MODES), name="credentials_mode"),
    CheckConstraint(one_of("state", credential.STATES), name="credentials_state"),
    CheckConstraint(
        "state <> 'issued' OR (vc_sha256 IS NOT NULL AND pdf_sha256 IS NOT NULL AND issued_at IS NOT NULL)",
        name="credentials_issued_has_evidence",
    ),
)
Index("credentials_listed", credentials.c.organisation_id, credentials.c.mode, credentials.c.created_at)
_UNFINISHED = text("state IN ('queued', 'issuing')")
Index(
    "credentials_unfinished",
    credentials.c.created_at,
    sqlite_where=_UNFINISHED,
    postgresql_where=_UNFINISHED,
)
Index("credentials_issued", credentials.c.organisation_id, credentials.c.issued_at)
_SUCCEEDS = text("supersedes IS NOT NULL AND state NOT IN ('failed', 'erased')")
Index(  # one successor at a time: whoever asks second gets the first one's
    "credentials_successor",
    credentials.c.supersedes,
    unique=True,
    sqlite_where=_SUCCEEDS,
    postgresql_where=_SUCCEEDS,
)
_CHANGED = text("status_changed_at IS NOT NULL")
Index(  # finds lists that should have been signed since
    "credentials_status_changed",
    credentials.c.status_changed_at,
    sqlite_where=_CHANGED,
    postgresql_where=_CHANGED,
)

# What a credential was signed as before: one row for each revision that a newer one replaced, written by the
# commit that replaces it (`services.resigning`). The current revision stands in the credential's own row, not
# here; a credential that was never signed again, as nearly all, has no row. `vc_sha256` names the exact bytes
# of the replaced document (the leaf of the same revision has it as its entry), `pdf_sha256` the final PDF
# around it, whose first `base_length` bytes are the same base in all revisions; both stay in the file store
# until the credential is erased. `verification_method` is the withdrawn key that signed it, `created_at` its
# `proof.created`, `replaced_at` when the newer one took its place. A document with these bytes is REPLACED,
# never UNKNOWN.
revisions = Table(
    "revisions",
    metadata,
    Column("credential_id", ForeignKey("credentials.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("vc_sha256", String(64), nullable=False, unique=True),
    Column("pdf_sha256", String(64), nullable=False),
    Column("verification_method", String(500), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("replaced_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("credential_id", "revision"),
)

# What is left of the address of an erased credential: its page answers 410 instead of 404, and nothing leads
# from here to a person, an organisation or a row.
erased_tokens = Table(
    "erased_tokens",
    metadata,
    Column("token_sha256", LargeBinary(32), primary_key=True),  # of the token's 22 ASCII characters
    Column("erased_at", UtcDateTime, nullable=False),
)

# What other software had signed over the VC-API. The documents are cleared after an hour; what is needed to
# withdraw them stays: the digest that stands in the log, and the place in a status list.
signed_documents = Table(
    "signed_documents",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("organisation_id", ForeignKey("organisations.id"), nullable=False),
    Column("mode", String(4), nullable=False),
    Column("unsigned", LargeBinary),  # canonical JSON, as it will be signed
    Column("signed", LargeBinary),
    Column("entry", LargeBinary(32), unique=True),  # SHA-256 of the signed bytes
    Column("status_list_number", ForeignKey("status_lists.number")),  # null: the document brought its own
    Column("status_index", Integer),
    Column("failure_detail", Text),
    Column("created_at", UtcDateTime, nullable=False),  # also proof.created
    Column("revoked_at", UtcDateTime),
    UniqueConstraint("status_list_number", "status_index"),
)
Index("signed_documents_created", signed_documents.c.created_at)
