# SPDX-License-Identifier: Apache-2.0
"""Choose the most urgent due runs: priority first, then tenants in turn, then age.

One index probe for each tenant on (queue, priority, tenant, due_at), never a ranking of all
that is due: 100,000 due rows must not be sorted twice a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, zip_longest
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from conferral.reliable.promises import BULK
from conferral.reliable.tables import UNRUNG, runs

BULK_SHARE = 8  # every 8th rung run is bulk, so that a stream of clicks cannot starve a batch


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due run that may be rung."""

    run_id: str
    task: str
    bundle_key: str | None
    may_be_bundled: bool


@dataclass(slots=True)
class Turn:
    """What one pass over a queue leaves to the next.

    Attributes:
        last_tenants: by priority, the tenant served last; the next turn begins after it.
        since_bulk: interactive runs chosen since the last bulk one.
    """

    last_tenants: dict[int, str] = field(default_factory=dict)
    since_bulk: int = 0


@dataclass(slots=True)
class Queue:
    """The unrung runs of one queue at one moment.

    Attributes:
        session: a read-only view.
        name: the queue.
        now: runs due later are not looked at.
        held_groups: groups that are paused.
        turn: the memory from pass to pass.
    """

    session: Session
    name: str
    now: datetime
    held_groups: Sequence[str] = ()
    turn: Turn = field(default_factory=Turn)

    def most_urgent(self, room: int) -> list[Candidate]:
        """Return at most `room` due runs, most urgent first; every 8th is bulk if bulk is due."""
        levels = self._levels()
        interactive = [level for level in levels if level < BULK]
        bulk = [level for level in levels if level >= BULK]
        # Bulk is looked at first only to know whether it needs its share.
        kept = self._fill(bulk, min(room, (self.turn.since_bulk + room) // BULK_SHARE) if interactive else 0)
        clicks = self._fill(interactive, room - len(kept))
        left = room - len(kept) - len(clicks)
        more = self._fill(bulk, left, [one.run_id for one in kept]) if left > 0 else []
        self.turn.since_bulk = 0 if kept or more else self.turn.since_bulk + len(clicks)
        return [*clicks, *kept, *more]

    def most_urgent_bulk(self, room: int) -> list[Candidate]:
        """Return at most `room` due bulk runs."""
        return self._fill([level for level in self._levels() if level >= BULK], room)

    def _fill(self, levels: Sequence[int], room: int, but: Sequence[str] = ()) -> list[Candidate]:
        chosen: list[Candidate] = []
        for level in levels:
            if len(chosen) < room:
                chosen += self._in_turn(level, room - len(chosen), but)
        return chosen

    def _in_turn(self, level: int, room: int, but: Sequence[str]) -> list[Candidate]:
        """Return one run of each tenant, then the next of each, until the room is used."""
        tenants = self._tenants(level, room)
        if not tenants:
            return []
        found: dict[str, list[Candidate]] = {tenant: [] for tenant in tenants}
        hungry, share = tenants, -(-room // len(tenants))
        while hungry:
            for tenant in hungry:
                found[tenant] = self._oldest(level, tenant, share, but)
            hungry = [tenant for tenant in hungry if len(found[tenant]) >= share]
            left = room - sum(map(len, found.values()))
            if left <= 0:
                break  # else: some had less than their share, and it goes to those that have more
            share += -(-left // len(hungry)) if hungry else 0
        turns = chain.from_iterable(zip_longest(*found.values()))
        served = [tenant for tenant, theirs in found.items() if theirs]
        self.turn.last_tenants[level] = served[-1] if served else ""
        return [one for one in turns if one is not None][:room]

    def _oldest(self, level: int, tenant: str, count: int, but: Sequence[str]) -> list[Candidate]:
        statement = (
            select(runs.c.id, runs.c.task, runs.c.bundle_key, runs.c.attempt)
            .where(*self._waiting(level), runs.c.tenant == tenant, runs.c.due_at <= self.now)
            .order_by(runs.c.due_at)
            .limit(count)
        )
        if self.held_groups:
            not_held = runs.c.group_key.not_in(self.held_groups)
            statement = statement.where(or_(runs.c.group_key.is_(None), not_held))
        if but:
            statement = statement.where(runs.c.id.not_in(but))
        return [
            Candidate(row.id, row.task, row.bundle_key, level >= BULK and row.attempt == 0)
            for row in self.session.execute(statement)
        ]

    def _waiting(self, level: int) -> tuple[Any, ...]:
        return (UNRUNG, runs.c.queue == self.name, runs.c.priority == level)

    def _levels(self) -> list[int]:
        """Return the priorities that have unrung runs: one probe each, not a scan."""
        smallest = select(func.min(runs.c.priority)).where(UNRUNG, runs.c.queue == self.name)
        found: list[int] = []
        level = self.session.execute(smallest).scalar_one()
        while level is not None:
            found.append(level)
            level = self.session.execute(smallest.where(runs.c.priority > level)).scalar_one()
        return found

    def _tenants(self, level: int, room: int) -> list[str]:
        """Return at most `room` tenants that have due runs, beginning after the one served last."""
        last = self.turn.last_tenants.get(level, "")
        after = self._tenants_with_due_runs(level, runs.c.tenant > last, room)
        if len(after) < room:  # wrap around
            after += self._tenants_with_due_runs(level, runs.c.tenant <= last, room - len(after))
        return after

    def _tenants_with_due_runs(self, level: int, part: ColumnElement[bool], room: int) -> list[str]:
        # One statement hops from tenant to tenant in the index (a recursive "next greater"),
        # and asks of each whether its oldest run is due: retries due tomorrow take no turn.
        first = select(func.min(runs.c.tenant).label("name")).where(*self._waiting(level), part)
        hops = first.cte("hops", recursive=True)
        following = (
            select(func.min(runs.c.tenant))
            .where(*self._waiting(level), part, runs.c.tenant > hops.c.name)
            .scalar_subquery()
        )
        hops = hops.union_all(select(following).where(hops.c.name.is_not(None)))
        due = (
            select(runs.c.id)
            .where(*self._waiting(level), runs.c.tenant == hops.c.name, runs.c.due_at <= self.now)
            .exists()
        )
        statement = select(hops.c.name).where(hops.c.name.is_not(None), due)
        return list(self.session.execute(statement.order_by(hops.c.name).limit(room)).scalars())
