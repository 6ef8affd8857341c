# SPDX-License-Identifier: Apache-2.0
"""A Beat of which any number may be started: one fires, each slot once.

    celery beat -S conferral.reliable.beat:SingletonScheduler

A firing is a promise with the key `tick:<entry>:<slot>`; even two leaders promise a slot
once. A slot missed while nobody led is fired once by whoever takes over, if it is not too old.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import Celery, beat
from celery.schedules import crontab, maybe_schedule
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from conferral.reliable import alive, leadership
from conferral.reliable.app import node_name, process_of
from conferral.reliable.context import Context
from conferral.reliable.crash_points import crash_point
from conferral.reliable.owner import this_process
from conferral.reliable.promises import BULK, promise
from conferral.reliable.tables import runs

log = logging.getLogger(__name__)

LEADERSHIP = "beat"
LOOK_SECONDS = 1.0  # the precision of a firing
MAX_GRACE = timedelta(hours=1)  # an older slot is history: its successor comes by itself


@dataclass(frozen=True, slots=True)
class Slot:
    """One due firing of one schedule entry."""

    entry: str
    task: str
    at: datetime

    @property
    def key(self) -> str:
        """Return the unique key of this firing."""
        return f"tick:{self.entry}:{self.at:%Y-%m-%dT%H:%M:%SZ}"


class SingletonScheduler(beat.Scheduler):
    """Celery's Beat with the schedule's memory in the database instead of a file."""

    def setup_schedule(self) -> None:
        """Read the schedule from the application; Beat keeps no state of its own."""
        self._holder = f"{node_name('beat')} {this_process()}"
        self._epoch: int | None = None
        self._fired: dict[str, str] = {}
        self._lead_again_at = 0.0
        self._touch_at = 0.0

    def tick(self, *_: Any, **__: Any) -> float:
        """Lead if possible, fire what is due; return the seconds until the next look."""
        if time.monotonic() >= self._touch_at:
            alive.touch(node_name("beat"))
            self._touch_at = time.monotonic() + alive.ALIVE_SECONDS
        context: Context = process_of(self.app).context
        try:
            if time.monotonic() >= self._lead_again_at:
                self._lead(context)
            if self._epoch is not None:
                self._fire(context)
        except SQLAlchemyError as error:
            self._epoch = None
            log.warning("beat_tick_failed", extra={"code": type(error).__name__})
        return LOOK_SECONDS

    def close(self) -> None:
        """Make room for a successor."""
        context: Context = process_of(self.app).context
        try:
            with context.transaction() as session:
                leadership.resign(session, LEADERSHIP, self._holder)
        except SQLAlchemyError:
            log.warning("beat_resigned_silently")  # the lease ends by itself

    def _lead(self, context: Context) -> None:
        with context.transaction() as session:
            epoch = leadership.lead(session, LEADERSHIP, self._holder, detail=dict(self._fired))
        if epoch is not None and epoch != self._epoch:
            log.info("beat_leads", extra={"epoch": epoch})
        self._epoch = epoch
        self._lead_again_at = time.monotonic() + leadership.RENEW_SECONDS

    def _fire(self, context: Context) -> None:
        for slot in due_slots(self.app, context.now()):
            if self._fired.get(slot.entry) == slot.key:
                continue
            with context.transaction() as session:
                known = session.execute(select(runs.c.id).where(runs.c.key == slot.key)).first()
                run_id = promise(session, slot.task, [], key=slot.key, priority=BULK, subject=slot.entry)
            crash_point("beat.promised")
            self._fired[slot.entry] = slot.key
            if known is None:
                log.info("tick", extra={"entry": slot.entry, "run_id": run_id, "slot": slot.key})


def due_slots(app: Celery, now: datetime) -> list[Slot]:
    """Return, for each schedule entry, its newest slot that is not older than its grace."""
    found = []
    for name, entry in app.conf.beat_schedule.items():
        at = newest_slot(entry["schedule"], now)
        if at is not None:
            found.append(Slot(name, entry["task"], at))
    return found


def newest_slot(when: Any, now: datetime) -> datetime | None:
    """Return the newest slot at or before `now`, or None when it is past its grace.

    Grace is the smaller of the interval and one hour. Slots of an interval are counted from
    the epoch, so every Beat on every host agrees on them. `when` is a crontab or a schedule
    of Celery's, whose fields its type information does not name.
    """
    when = maybe_schedule(when)  # entries may give seconds or a timedelta
    if isinstance(when, crontab):
        minute = now.replace(second=0, microsecond=0)
        for back in range(int(MAX_GRACE.total_seconds() // 60) + 1):
            candidate = minute - timedelta(minutes=back)
            if _matches(when, candidate):
                return candidate
        return None
    seconds = when.run_every.total_seconds()
    at = datetime.fromtimestamp(now.timestamp() // seconds * seconds, tz=now.tzinfo)
    return at if now - at <= MAX_GRACE else None


def slots_between(when: Any, since: datetime, until: datetime) -> list[datetime]:
    """Return every slot of a schedule in [since, until): what Beat would have fired, had it always led."""
    when = maybe_schedule(when)
    found = []
    if isinstance(when, crontab):
        at = since.replace(second=0, microsecond=0)
        while at < until:
            if at >= since and _matches(when, at):
                found.append(at)
            at += timedelta(minutes=1)
        return found
    seconds = when.run_every.total_seconds()
    at = datetime.fromtimestamp(-(-since.timestamp() // seconds) * seconds, tz=since.tzinfo)
    while at < until:
        found.append(at)
        at += timedelta(seconds=seconds)
    return found


def _matches(when: Any, at: datetime) -> bool:
    return bool(
        at.minute in when.minute
        and at.hour in when.hour
        and at.isoweekday() % 7 in when.day_of_week
        and at.day in when.day_of_month
        and at.month in when.month_of_year
    )
