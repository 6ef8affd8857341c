# SPDX-License-Identifier: Apache-2.0
"""When each schedule fired last, read from the runs it promised."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from conferral.reliable.tables import runs
from conferral.store.records import Record


def newest(session: Session, schedules: Sequence[str]) -> dict[str, Record]:
    """Return schedule → (created_at, state) of its newest firing; absent when it never fired."""
    found = {}
    for name in schedules:
        row = session.execute(
            select(runs.c.created_at, runs.c.state)
            .where(runs.c.subject == name, runs.c.key.is_not(None))
            .order_by(runs.c.created_at.desc())
            .limit(1)
        ).one_or_none()
        if row is not None:
            found[name] = row
    return found
