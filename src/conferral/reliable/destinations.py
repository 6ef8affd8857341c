# SPDX-License-Identifier: Apache-2.0
"""What waits for one destination (`bundle_key`): put off while it is down, brought back when it answers.

One statement for everything that waits, never a claim for each. It writes no history: nothing
was begun. Who knows that a destination is down, and for how long, is the caller's breaker.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from conferral.reliable.tables import CLAIMABLE, runs


def defer(
    session: Session, bundle_key: str, until: datetime, code: str, *, due_by: datetime | None = None
) -> int:
    """Move the unclaimed runs of a destination to `until`, saying why; return how many.

    With `due_by` only those that were due by then: what waits for a time of its own keeps it.
    """
    moved = session.execute(
        update(runs)
        .where(runs.c.bundle_key == bundle_key, CLAIMABLE, runs.c.due_at < until)
        .where(*(() if due_by is None else (runs.c.due_at <= due_by,)))
        .values(due_at=until, rung_at=None, error_code=code)
    )
    return int(moved.rowcount)  # type: ignore[attr-defined]  # CursorResult, by construction


def recall(session: Session, bundle_key: str, code: str, at: datetime) -> int:
    """Make runs that were put off with `code`, and only they, due at `at`; return how many.

    For whoever finds out earlier than feared whether the destination answers. A run that waits
    for its own retry has another code and keeps its time.
    """
    moved = session.execute(
        update(runs)
        .where(runs.c.bundle_key == bundle_key, CLAIMABLE, runs.c.error_code == code, runs.c.due_at > at)
        .values(due_at=at, rung_at=None)
    )
    return int(moved.rowcount)  # type: ignore[attr-defined]  # CursorResult, by construction
