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
        oldest = self._tenants(level, room, but)
        if not oldest:
            return []
        tenants, share = list(oldest), -(-room // len(oldest))
        self.turn.last_tenants[level] = tenants[-1]
        if share == 1:  # hundreds of tenants must not cost hundreds of statements
            return self._of_ids(level, list(oldest.values()))
        found: dict[str, list[Candidate]] = {tenant: [] for tenant in tenants}
        hungry = tenants
        while hungry:
            for tenant in hungry:
                found[tenant] = self._oldest(level, tenant, share, but)
            hungry = [tenant for tenant in hungry if len(found[tenant]) >= share]
            left = room - sum(map(len, found.values()))
            if left <= 0:
                break  # else: some had less than their share, and it goes to those that have more
            share += -(-left // len(hungry)) if hungry else 0
        turns = chain.from_iterable(zip_longest(*found.values()))
        return [one for one in turns if one is not None][:room]

    def _oldest(self, level: int, tenant: str, count: int, but: Sequence[str]) -> list[Candidate]:
        statement = (
            select(*_CHOSEN)
            .where(*self._due(level, but), runs.c.tenant == tenant)
            .order_by(runs.c.due_at)
            .limit(count)
        )
        return [_candidate(row, level) for row in self.session.execute(statement)]

    def _of_ids(self, level: int, ids: Sequence[str]) -> list[Candidate]:
        found = self.session.execute(select(*_CHOSEN).where(runs.c.id.in_(ids)))
        by_id = {row.id: _candidate(row, level) for row in found}
        return [by_id[run_id] for run_id in ids if run_id in by_id]

    def _due(self, level: int, but: Sequence[str]) -> list[ColumnElement[bool]]:
        """Return what is true of the runs that may be chosen, whoever's they are."""
        due = [*self._waiting(level), runs.c.due_at <= self.now]
        if self.held_groups:
            due.append(or_(runs.c.group_key.is_(None), runs.c.group_key.not_in(self.held_groups)))
        if but:
            due.append(runs.c.id.not_in(but))
        return due

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

    def _tenants(self, level: int, room: int, but: Sequence[str]) -> dict[str, str]:
        """Return at most `room` tenants with their oldest due run, beginning after the one served last."""
        last = self.turn.last_tenants.get(level)
        after = self._tenants_from(level, (last, None), room, but)
        if len(after) < room and last is not None:  # wrap around
            after |= self._tenants_from(level, (None, last), room - len(after), but)
        return after

    def _tenants_from(
        self, level: int, span: tuple[str | None, str | None], room: int, but: Sequence[str]
    ) -> dict[str, str]:
        # One statement hops from tenant to tenant in the index (a recursive "next greater"),
        # and asks of each for its oldest due run: retries due tomorrow take no turn. It stops
        # at the limit: it is not sorted, because the hops are in order already. The step has
        # one lower bound only: of two, SQLite takes the wrong one and reads everything again.
        after, until = span
        bound = [] if until is None else [runs.c.tenant <= until]
        smallest = select(func.min(runs.c.tenant).label("name")).where(*self._waiting(level), *bound)
        first = smallest if after is None else smallest.where(runs.c.tenant > after)
        hops = first.cte("hops", recursive=True)
        following = smallest.where(runs.c.tenant > hops.c.name).scalar_subquery()
        hops = hops.union_all(select(following).where(hops.c.name.is_not(None)))
        oldest = (
            select(runs.c.id)
            .where(*self._due(level, but), runs.c.tenant == hops.c.name)
            .order_by(runs.c.due_at)
            .limit(1)
            .scalar_subquery()
        )
        found = select(hops.c.name, oldest.label("oldest")).where(hops.c.name.is_not(None)).subquery()
        statement = select(found.c.name, found.c.oldest).where(found.c.oldest.is_not(None)).limit(room)
        return {row.name: row.oldest for row in self.session.execute(statement)}


_CHOSEN = (runs.c.id, runs.c.task, runs.c.bundle_key, runs.c.attempt)


def _candidate(row: Any, level: int) -> Candidate:
    return Candidate(row.id, row.task, row.bundle_key, level >= BULK and row.attempt == 0)
