# SPDX-License-Identifier: Apache-2.0
"""What an operator looks at and does: queues, processes, schedules, dead letters.

Depths are read from rows, never from Redis: there is nothing to see there while work waits for
its next try. Whoever replays or discards touches the runs of one organisation and mode only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.reliable import dead_letters, leadership, pauses, status
from conferral.reliable.dead_letters import Filter
from conferral.reliable.outbox import terms_of
from conferral.reliable.status import QueueStatus
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import bookkeeping, gauges, listing

SEEN_WITHIN: Final = timedelta(seconds=30)  # three heartbeats of a worker
BEAT, DISPATCHER = "beat", "dispatcher"
PAGE: Final = dead_letters.PAGE


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue: its work, since when the oldest of it is due, and who does it."""

    work: QueueStatus
    oldest_due_at: datetime | None
    is_paused: bool
    slots: int

    @property
    def is_deserted(self) -> bool:
        """Whether work waits and nobody is there to take it."""
        return self.work.due > 0 and self.slots == 0


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads one thing; `is_held` is false when the last holder let its lease end."""

    name: str
    holder: str | None
    epoch: int
    until: datetime | None
    is_held: bool
    last_ticks: dict[str, str]


def queues(rt: Runtime, session: Session) -> list[Queue]:
    """Return every queue in the order of the routes."""
    now = rt.database.now()
    slots: Counter[str] = Counter()
    for worker in workers(rt, session):
        for queue in worker.queues:
            slots[queue] += worker.slots
    paused = pauses.paused(session).queues
    oldest: dict[str, datetime] = {}
    for name, _, _, since in gauges.due(session, now):
        oldest[name] = min(since, oldest.get(name, since))
    return [
        Queue(status.queue_status(session, name, now), oldest.get(name), name in paused, slots[name])
        for name in terms_of(session).routing.queues
    ]


def workers(rt: Runtime, session: Session) -> Sequence[Any]:
    """Return the worker processes that gave a sign of life within three heartbeats."""
    return status.live_workers(session, rt.database.now() - SEEN_WITHIN)


def leaders(rt: Runtime, session: Session) -> list[Leadership]:
    """Return who leads the dispatcher and Beat."""
    now = rt.database.now()
    found = []
    for name in (DISPATCHER, BEAT):
        row = leadership.leader(session, name)
        if row is None:
            found.append(Leadership(name, None, 0, None, is_held=False, last_ticks={}))
            continue
        ticks = row.detail if isinstance(row.detail, dict) and name == BEAT else {}
        last = {str(entry): str(key).partition(f"tick:{entry}:")[2] for entry, key in ticks.items()}
        found.append(Leadership(name, row.holder, row.epoch, row.until, row.until > now, last))
    return found


def dead(session: Session, who: Caller, wanted: Filter) -> list[Any]:
    """Return the dead letters a caller may see: rows of `runs`, oldest first, at most a page."""
    mine = Filter(wanted.task, wanted.code, who.organisation_id, wanted.run_ids)
    found = list(dead_letters.listed(session, mine, limit=PAGE))
    subjects = [row.subject for row in found if (row.subject or "").startswith("cred_")]
    modes = listing.credential_modes(session, subjects)
    return [row for row in found if modes.get(row.subject, who.mode) == who.mode]


def dead_of_organisation(session: Session, organisation_id: str, wanted: Filter) -> list[Any]:
    """Return the dead letters a person of an organisation may see: both modes, and maintenance.

    Maintenance runs are nobody's: they belong to whoever operates the deployment, and they name nobody.
    """
    found: list[Any] = []
    for tenant in (organisation_id, ""):
        mine = Filter(wanted.task, wanted.code, tenant, wanted.run_ids)
        found += dead_letters.listed(session, mine, limit=PAGE)
    return found[:PAGE]


def by_cause(rows: Sequence[Any]) -> list[tuple[str, str, int]]:
    """Return (task, code, count) of dead letters, most frequent first."""
    counted = Counter((row.task, row.error_code or "internal") for row in rows)
    return [(task, code, count) for (task, code), count in counted.most_common()]


def replay(rt: Runtime, session: Session, who: Caller, wanted: Filter) -> list[str]:
    """Make dead letters due again, a page at most; return their ids."""
    ids = tuple(row.id for row in dead(session, who, wanted))
    done = dead_letters.replay(session, Filter(run_ids=ids), limit=PAGE) if ids else []
    _audit(rt, session, who, "dead_letters.replayed", done)
    return done


def discard(rt: Runtime, session: Session, who: Caller, wanted: Filter) -> list[str]:
    """Give dead letters up for good, a page at most; return their ids."""
    ids = tuple(row.id for row in dead(session, who, wanted))
    done = dead_letters.discard(session, Filter(run_ids=ids), limit=PAGE) if ids else []
    _audit(rt, session, who, "dead_letters.discarded", done)
    return done


def replay_shown(rt: Runtime, session: Session, who: Caller, run_ids: tuple[str, ...]) -> list[str]:
    """Make exactly the dead letters due again that a person of the organisation was shown."""
    rows = dead_of_organisation(session, who.organisation_id, Filter(run_ids=run_ids))
    ids = tuple(row.id for row in rows)
    done = dead_letters.replay(session, Filter(run_ids=ids), limit=PAGE) if ids else []
    _audit(rt, session, who, "dead_letters.replayed", done)
    return done


def discard_shown(rt: Runtime, session: Session, who: Caller, run_ids: tuple[str, ...]) -> list[str]:
    """Give exactly the dead letters up for good that a person of the organisation was shown."""
    rows = dead_of_organisation(session, who.organisation_id, Filter(run_ids=run_ids))
    ids = tuple(row.id for row in rows)
    done = dead_letters.discard(session, Filter(run_ids=ids), limit=PAGE) if ids else []
    _audit(rt, session, who, "dead_letters.discarded", done)
    return done


def _audit(rt: Runtime, session: Session, who: Caller, action: str, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        bookkeeping.audit(
            session,
            organisation_id=who.organisation_id,
            actor=who.actor,
            action=action,
            subject=run_id,
            request_id=who.request_id,
            created_at=rt.database.now(),
        )
