# SPDX-License-Identifier: Apache-2.0
"""Finds workers that live and do not listen: the commonest complaint after Redis was restarted.

Two steps, because the supervisor never opens the database. It asks Redis which queue's oldest message has
not moved for 90 s; that alone may be long work. Then a short-lived process (`python -m
conferral.cli.deafness POOL`) looks whether a run is due and rung and unclaimed while slots are free.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import timedelta

from conferral.cli import redis_protocol
from conferral.cli.processes import POOLS, Pool, pool_named
from conferral.settings import Settings

# Three times the dispatcher's patience before it rings again.
UNHEARD_SECONDS = 90.0
# The exit status that means: yes, it is deaf. Neither 1 nor 2, which mean that we could not tell.
DEAF = 3


class Ears:
    """Remembers for each pool how long its oldest message has been the oldest."""

    def __init__(self, broker_url: str) -> None:
        self._url = broker_url
        self._oldest: dict[str, tuple[bytes | int | None, float]] = {}

    def suspects(self, now: float) -> Iterator[str]:
        """Yield the pools whose oldest message has not moved for too long; none while Redis is away."""
        try:
            oldest = redis_protocol.ask(self._url, *(("LINDEX", pool.queue, -1) for pool in POOLS))
        except (OSError, redis_protocol.RedisError):
            self._oldest.clear()
            return
        for pool, message in zip(POOLS, oldest, strict=True):
            known, since = self._oldest.get(pool.name, (None, now))
            if message is None or message != known:
                self._oldest[pool.name] = (message, now)
            elif now - since > UNHEARD_SECONDS:
                # Asked once; if it is only busy, it is asked again when as much time has passed.
                self._oldest[pool.name] = (message, now)
                yield pool.name


def is_deaf(settings: Settings, pool: Pool) -> bool:
    """Whether a run of the pool's queue is due, rung and unclaimed while the pool has a free slot."""
    from sqlalchemy import func, select

    from conferral.reliable.tables import LEASED, RUNG, runs
    from conferral.store.engine import Database
    from conferral.wiring import routing_of

    database = Database(
        settings.database_url, routing=routing_of(settings), pool_size=1, application="conferral-up"
    )
    too_long_ago = database.now() - timedelta(seconds=UNHEARD_SECONDS)
    try:
        with database.snapshot() as session:
            working = session.execute(
                select(func.count()).select_from(runs).where(runs.c.queue == pool.queue, LEASED)
            ).scalar_one()
            unheard = session.execute(
                select(runs.c.id)
                .where(runs.c.queue == pool.queue, RUNG, runs.c.due_at < too_long_ago)
                .limit(1)
            ).first()
    finally:
        database.dispose()
    return unheard is not None and working < getattr(settings, pool.slots)


if __name__ == "__main__":
    sys.exit(DEAF if is_deaf(Settings.from_env(os.environ), pool_named(sys.argv[1])) else 0)
