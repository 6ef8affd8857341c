# SPDX-License-Identifier: Apache-2.0
"""Counts of what is not final, each from a partial index: a million finished rows cost nothing.

They are of the whole deployment, and hold no id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conferral.domain import credential
from conferral.reliable.tables import LEASED, PARKED, RUNG, UNRUNG, WAITING, runs
from conferral.store.tables import credentials, leaves
from conferral.store.tables import endpoints as endpoint_table
from conferral.store.tables import logs as log_table

ISSUE_TASK: Final = "tasks.issuance.issue_credential"  # the only task whose runs wait


def live_runs(session: Session) -> list[tuple[str, str, int]]:
    """Return (task, state, count) of runs that are not final, and of dead letters."""
    counted: Counter[tuple[str, str]] = Counter()
    for condition in (UNRUNG, RUNG, LEASED, PARKED):
        found = session.execute(
            select(runs.c.task, runs.c.state, func.count())
            .where(condition)
            .group_by(runs.c.task, runs.c.state)
        )
        for task, state, count in found:
            counted[task, state] += count
    # Waiting runs have no index of their own; each belongs to a credential that is being issued.
    waiting = dict(unfinished_credentials(session)).get(credential.ISSUING, 0)
    if waiting:
        counted[ISSUE_TASK, WAITING] = waiting
    return [(task, state, count) for (task, state), count in sorted(counted.items())]


def dead_letters(session: Session) -> list[tuple[str, str, int]]:
    """Return (task, code, count) of dead letters."""
    found = session.execute(
        select(runs.c.task, runs.c.error_code, func.count())
        .where(PARKED)
        .group_by(runs.c.task, runs.c.error_code)
    )
    return [(task, code or "internal", count) for task, code, count in found]


def due(session: Session, now: datetime) -> list[tuple[str, int, int, datetime]]:
    """Return (queue, priority, count, oldest due time) of what is due."""
    counts: Counter[tuple[str, int]] = Counter()
    oldest: dict[tuple[str, int], datetime] = {}
    for condition in (UNRUNG, RUNG):
        found = session.execute(
            select(runs.c.queue, runs.c.priority, func.count(), func.min(runs.c.due_at))
            .where(condition, runs.c.due_at <= now)
            .group_by(runs.c.queue, runs.c.priority)
        )
        for queue, priority, count, since in found:
            counts[queue, priority] += count
            oldest[queue, priority] = min(since, oldest.get((queue, priority), since))
    return [(queue, priority, count, oldest[queue, priority]) for (queue, priority), count in counts.items()]


def working(session: Session) -> dict[str, int]:
    """Return how many runs each queue has under way."""
    found = session.execute(select(runs.c.queue, func.count()).where(LEASED).group_by(runs.c.queue))
    return {row.queue: row[1] for row in found}


def unfinished_credentials(session: Session) -> list[tuple[str, int]]:
    """Return (state, count) of credentials that are queued or being issued."""
    found = session.execute(
        select(credentials.c.state, func.count())
        .where(credentials.c.state.in_(credential.UNFINISHED))
        .group_by(credentials.c.state)
    )
    return [(state, count) for state, count in found]


def endpoints(session: Session) -> list[tuple[str, int]]:
    """Return (state, count) of webhook endpoints; `paused` are enabled and left alone for now."""
    is_paused = endpoint_table.c.closed_until.is_not(None)
    found = session.execute(
        select(endpoint_table.c.state, is_paused, func.count()).group_by(endpoint_table.c.state, is_paused)
    )
    counted: Counter[str] = Counter()
    for state, paused, count in found:
        counted["paused" if paused and state == "enabled" else state] += count
    return sorted(counted.items())


def logs(session: Session) -> Iterator[tuple[str, int, datetime | None, int]]:
    """Yield (log, leaves without a place, the oldest of them, size)."""
    for log, size in session.execute(select(log_table.c.log, log_table.c.size)).all():
        count, since = session.execute(
            select(func.count(), func.min(leaves.c.created_at)).where(
                leaves.c.leaf_index.is_(None), leaves.c.log == log
            )
        ).one()
        yield log, count, since, size
