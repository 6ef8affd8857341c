# SPDX-License-Identifier: Apache-2.0
"""Which of an organisation's own ids are taken by credentials."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from conferral.store.records import Record
from conferral.store.tables import credentials


def taken(session: Session, organisation_id: str, mode: str, external_ids: Sequence[str]) -> Sequence[Record]:
    """Return (id, external_id, content_digest) of the credentials that have one of these external ids."""
    return session.execute(
        select(credentials.c.id, credentials.c.external_id, credentials.c.content_digest).where(
            credentials.c.organisation_id == organisation_id,
            credentials.c.mode == mode,
            credentials.c.external_id.in_(external_ids),
        )
    ).all()
