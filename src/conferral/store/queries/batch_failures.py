# SPDX-License-Identifier: Apache-2.0
"""What went wrong for good in a batch: its dead letters with the rows they belong to."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from conferral.reliable.tables import FAILURE, runs
from conferral.store.records import Record
from conferral.store.tables import credentials


def failures(session: Session, batch_id: str, limit: int) -> Sequence[Record]:
    """Return (id, task, error_code, error_detail, credential_id, batch_row) of dead letters, by row."""
    return session.execute(
        select(
            runs.c.id,
            runs.c.task,
            runs.c.error_code,
            runs.c.error_detail,
            credentials.c.id.label("credential_id"),
            credentials.c.batch_row,
        )
        .outerjoin(credentials, credentials.c.id == runs.c.subject)
        .where(runs.c.group_key == batch_id, runs.c.state == FAILURE)
        .order_by(credentials.c.batch_row, runs.c.id)
        .limit(limit)
    ).all()
