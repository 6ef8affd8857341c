# SPDX-License-Identifier: Apache-2.0
"""Choose the most urgent due runs: priority first, then tenants in turn, then age.

One index probe for each tenant on (queue, priority, tenant, due_at), never a ranking of all
that is due: 100,000 due rows must not be sorted twice a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, zip_longest

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from conferral.reliable.promises import BULK
from conferral.reliable.tables import UNRUNG, runs

BULK_SHARE = 8  # every 8th rung run is bulk, so that a stream of clicks cannot starve a batch
MAX_TENANTS = 1_000  # probed a pass; the next pass goes on after the last one


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due run that may be rung."""

    run_id: str
    task: str
    bundle_key: str | None
    may_be_bundled: bool


@dataclass(slots=True)
class Queue:
    """The unrung runs of one queue at one moment.

    Attributes:
        session: a read-only view.
        name: the queue.
        now: runs due later are not looked at.
        held_groups: groups that are paused.
        last_tenant: the tenant served last; the next turn begins after it.
    """

    session: Session
    name: str
    now: datetime
    held_groups: Sequence[str] = ()
    last_tenant: str = ""

    def most_urgent(self, room: int) -> list[Candidate]:
        """Return at most `room` due runs, most urgent first; moves `last_tenant` on."""
        levels = self._levels()
        interactive = [level for level in levels if level < BULK]
        bulk = [level for level in levels if level >= BULK]
        kept = max(room // BULK_SHARE, 1) if interactive and bulk and room > 1 else 0
        chosen = self._fill(interactive, room - kept)
        chosen += self._fill(bulk, room - len(chosen))
        if kept and len(chosen) < room:  # bulk was there but not due: give its places back
            taken = {one.run_id for one in chosen}
            chosen += [one for one in self._fill(interactive, room) if one.run_id not in taken][
                : room - len(chosen)
            ]
        return chosen

    def _fill(self, levels: Sequence[int], room: int) -> list[Candidate]:
        chosen: list[Candidate] = []
        for level in levels:
            if len(chosen) < room:
                chosen += self._in_turn(level, room - len(chosen))
        return chosen

    def _in_turn(self, level: int, room: int) -> list[Candidate]:
        tenants = self._tenants(level)
        position = next((index for index, name in enumerate(tenants) if name > self.last_tenant), 0)
        tenants = [*tenants[position:], *tenants[:position]]
        if not tenants:
            return []
        share = -(-room // len(tenants))
        by_tenant = [self._oldest(level, tenant, share) for tenant in tenants]
        turns = chain.from_iterable(zip_longest(*by_tenant))
        served = [tenant for tenant, found in zip(tenants, by_tenant, strict=True) if found][:room]
        self.last_tenant = served[-1] if served else self.last_tenant
        return [one for one in turns if one is not None][:room]

    def _oldest(self, level: int, tenant: str, count: int) -> list[Candidate]:
        statement = (
            select(runs.c.id, runs.c.task, runs.c.bundle_key, runs.c.attempt)
            .where(
                UNRUNG,
                runs.c.queue == self.name,
                runs.c.priority == level,
                runs.c.tenant == tenant,
                runs.c.due_at <= self.now,
            )
            .order_by(runs.c.due_at)
            .limit(count)
        )
        if self.held_groups:
            not_held = runs.c.group_key.not_in(self.held_groups)
            statement = statement.where(or_(runs.c.group_key.is_(None), not_held))
        return [
            Candidate(row.id, row.task, row.bundle_key, level >= BULK and row.attempt == 0)
            for row in self.session.execute(statement)
        ]

    def _levels(self) -> list[int]:
        """Return the priorities that have unrung runs: one probe each, not a scan."""
        smallest = select(func.min(runs.c.priority)).where(UNRUNG, runs.c.queue == self.name)
        found: list[int] = []
        level = self.session.execute(smallest).scalar_one()
        while level is not None:
            found.append(level)
            level = self.session.execute(smallest.where(runs.c.priority > level)).scalar_one()
        return found

    def _tenants(self, level: int) -> list[str]:
        """Return the tenants that have unrung runs of one priority: one probe each."""
        first = select(func.min(runs.c.tenant)).where(
            UNRUNG, runs.c.queue == self.name, runs.c.priority == level
        )
        found: list[str] = []
        tenant = self.session.execute(first).scalar_one()
        while tenant is not None and len(found) < MAX_TENANTS:
            found.append(tenant)
            tenant = self.session.execute(first.where(runs.c.tenant > tenant)).scalar_one()
        return found
