# SPDX-License-Identifier: Apache-2.0
"""A named lease with an epoch: one dispatcher, one Beat, a holder that can be shown.

Leadership saves work; correctness never rests on it. Two leaders, for the instant a frozen
one wakes up, ring a bell twice or promise a slot twice, and both are harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert  # compiles for SQLite, too (see promises.py)
from sqlalchemy.orm import Session

from conferral.reliable.outbox import terms_of
from conferral.reliable.owner import is_gone
from conferral.reliable.tables import leases

LEASE_SECONDS = 10.0
RENEW_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, since which term, until when unless renewed."""

    name: str
    holder: str
    epoch: int
    until: datetime
    detail: Any


def lead(session: Session, name: str, holder: str, detail: Any = None) -> int | None:
    """Take or renew the leadership; return the epoch, or None while somebody else leads.

    A holder whose process on this host is gone is succeeded at once.
    """
    now = terms_of(session).now()
    until = now + timedelta(seconds=LEASE_SECONDS)
    session.execute(
        insert(leases)
        .values(name=name, holder=holder, epoch=0, until=now - timedelta(seconds=1))
        .on_conflict_do_nothing(index_elements=[leases.c.name])
    )
    renewed: int | None = session.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.holder == holder, leases.c.epoch > 0)
        .values(until=until, detail=detail)
        .returning(leases.c.epoch)
    ).scalar_one_or_none()
    if renewed is not None:
        return renewed
    current = leader(session, name)
    vacant = or_(leases.c.until < now, leases.c.epoch == 0)
    if current is not None and is_gone(current.holder.split(" ")[-1]):
        vacant = leases.c.epoch == current.epoch
    taken: int | None = session.execute(
        update(leases)
        .where(leases.c.name == name, vacant)
        .values(holder=holder, epoch=leases.c.epoch + 1, until=until, detail=detail)
        .returning(leases.c.epoch)
    ).scalar_one_or_none()
    return taken


def resign(session: Session, name: str, holder: str) -> None:
    """End our leadership now, so that a successor need not wait for the lease."""
    now = terms_of(session).now()
    session.execute(
        update(leases)
        .where(leases.c.name == name, leases.c.holder == holder)
        .values(until=now - timedelta(seconds=1))
    )


def leader(session: Session, name: str) -> Leader | None:
    """Return the current or last holder."""
    row = session.execute(select(leases).where(leases.c.name == name)).one_or_none()
    if row is None:
        return None
    return Leader(row.name, row.holder, row.epoch, row.until, row.detail)
