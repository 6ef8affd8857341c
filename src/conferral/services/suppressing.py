# SPDX-License-Identifier: Apache-2.0
"""People who want no more mail from an organisation, by the link in its mail.

What is kept is an HMAC of the address: it recognises the person and names nobody.
"""

from __future__ import annotations

from typing import Final

from conferral.services import emailing
from conferral.services.runtime import Runtime
from conferral.store.queries import credentials, deliveries

REASON: Final = "unsubscribed"


def organisation_of(rt: Runtime, token: str) -> str | None:
    """Return the name of the organisation whose mail a link would end, None if the link is unknown."""
    with rt.database.snapshot() as session:
        row = credentials.by_token(session, token)
    return str(row.organisation_name) if row is not None else None


def unsubscribe(rt: Runtime, token: str) -> str | None:
    """Suppress the recipient's address; again is the same. Return the organisation's name."""
    with rt.database.transaction() as session:
        row = credentials.by_token(session, token)
        if row is None:
            return None
        digest = emailing.address_digest(rt.need_secrets_key(), row.recipient_email)
        deliveries.suppress(session, row.organisation_id, digest, REASON, rt.database.now())
    return str(row.organisation_name)
