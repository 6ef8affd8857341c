# SPDX-License-Identifier: Apache-2.0
"""The product's tables. Everything that belongs to an organisation says so in its row.

Once-only is a unique constraint here, never a lock and never a check before an insert.
"""

from conferral.store.tables.base import metadata
from conferral.store.tables.bookkeeping import audit_blocks, audit_log, audit_seals, idempotency_keys, reports
from conferral.store.tables.credentials import (
    batch_rows,
    batches,
    credentials,
    erased_tokens,
    revisions,
    signed_documents,
    status_lists,
)
from conferral.store.tables.deliveries import (
    answers,
    channels,
    deliveries,
    endpoints,
    events,
    mailbox,
    suppressions,
)
from conferral.store.tables.log import checkpoints, leaves, log_tiles, logs
from conferral.store.tables.tenancy import (
    api_keys,
    issuers,
    members,
    organisations,
    sessions,
    signing_keys,
    template_versions,
    templates,
    users,
)

__all__ = [
    "answers",
    "api_keys",
    "audit_blocks",
    "audit_log",
    "audit_seals",
    "batch_rows",
    "batches",
    "channels",
    "checkpoints",
    "credentials",
    "deliveries",
    "endpoints",
    "erased_tokens",
    "events",
    "idempotency_keys",
    "issuers",
    "leaves",
    "log_tiles",
    "logs",
    "mailbox",
    "members",
    "metadata",
    "organisations",
    "reports",
    "revisions",
    "sessions",
    "signed_documents",
    "signing_keys",
    "status_lists",
    "suppressions",
    "template_versions",
    "templates",
    "users",
]
