# SPDX-License-Identifier: Apache-2.0
"""The leases one worker process holds, and the one thread that renews them all.

Renewing is what lets an effect take longer than a lease. The same thread says that the
process is alive (`workers`), one write for all it holds and not one a run.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert  # compiles for SQLite, too (see promises.py)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from conferral.reliable.context import Context
from conferral.reliable.outbox import terms_of
from conferral.reliable.owner import this_process
from conferral.reliable.runs import Run
from conferral.reliable.tables import LEASED, runs, workers

log = logging.getLogger(__name__)

# No effect takes this long (archives have 600 s); a thread that hangs must not own its run for ever.
MAX_HELD_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class Presence:
    """How this process appears in `workers`."""

    node: str
    pool: str
    queues: tuple[str, ...]
    slots: int


@dataclass(slots=True)
class _Lease:
    """Monotonic times: when the lease surely ends, when it was taken."""

    until: float
    since: float


class Holding:
    """What this process has claimed and not yet ended; its threads may share it.

    Held by (run id, attempt): a thread that froze, lost its run and wakes up must not drop
    the lease of the thread beside it that executes the same run now.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._held: dict[tuple[str, int], _Lease] = {}
        self._lock = threading.Lock()
        self._presence: Presence | None = None
        self._started_at: datetime | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.owner = this_process()

    def start(self, presence: Presence | None = None) -> None:
        """Start renewing, once; with a presence also say every time that we are alive.

        The database is first asked by the thread: a process that starts while it is away
        still gets its heartbeat.
        """
        with self._lock:
            if self._thread is not None:
                return
            self._presence = presence
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; what is still held comes back when its lease ends."""
        self._stopped.set()

    def add(self, claimed: Iterable[Run]) -> None:
        """Renew these from now on."""
        now = time.monotonic()
        with self._lock:
            for run in claimed:
                self._held[run.id, run.attempt] = _Lease(now + self._context.lease_seconds, now)
                run.lease_left = functools.partial(self._seconds_left, run.id, run.attempt)
                run.let_go = functools.partial(self._drop, run.id, run.attempt)

    def drop(self, run: Run) -> None:
        """Stop renewing one run."""
        self._drop(run.id, run.attempt)

    def _drop(self, run_id: str, attempt: int) -> None:
        with self._lock:
            self._held.pop((run_id, attempt), None)

    def _seconds_left(self, run_id: str, attempt: int) -> float:
        """Return how long the lease of a run surely lasts, from memory."""
        with self._lock:
            lease = self._held.get((run_id, attempt))
        return lease.until - time.monotonic() if lease else 0.0

    def _beat(self) -> None:
        while True:
            try:
                self.renew()
            except SQLAlchemyError as error:
                # The next beat comes well before the lease ends; the fence covers the rest.
                log.warning("heartbeat_failed", extra={"code": type(error).__name__})
            except Exception:
                # A process without a heartbeat loses every run that takes longer than a lease.
                log.exception("heartbeat_raised", extra={"code": "internal"})
            if self._stopped.wait(self._context.heartbeat_seconds):
                return

    def renew(self) -> None:
        """Renew every held lease in one statement, and our presence."""
        held = self._renewable()
        if not held and self._presence is None:
            return
        began = time.monotonic()
        with self._context.transaction() as session:
            renewed = self._renew(session, {run_id for run_id, _ in held}) if held else set()
            if self._presence is not None:
                self._say_present(session, self._presence)
        with self._lock:
            for run_id, attempt in renewed:
                if (lease := self._held.get((run_id, attempt))) is not None:
                    lease.until = began + self._context.lease_seconds

    def _renewable(self) -> list[tuple[str, int]]:
        oldest = time.monotonic() - MAX_HELD_SECONDS
        with self._lock:
            return [key for key, lease in self._held.items() if lease.since > oldest]

    def _renew(self, session: Session, run_ids: set[str]) -> set[tuple[str, int]]:
        until = terms_of(session).now() + timedelta(seconds=self._context.lease_seconds)
        renewed = session.execute(
            update(runs)
            .where(runs.c.id.in_(sorted(run_ids)), LEASED, runs.c.lease_owner == self.owner)
            .values(lease_until=until)
            .returning(runs.c.id, runs.c.attempt)
        )
        return {(row.id, row.attempt) for row in renewed}

    def _say_present(self, session: Session, presence: Presence) -> None:
        now = terms_of(session).now()
        self._started_at = self._started_at or now
        statement = insert(workers).values(
            node=presence.node,
            pid=os.getpid(),
            pool=presence.pool,
            queues=list(presence.queues),
            slots=presence.slots,
            host=socket.gethostname(),
            started_at=self._started_at,
            seen_at=now,
        )
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[workers.c.node, workers.c.pid],
                set_={"seen_at": now, "started_at": self._started_at, "slots": presence.slots},
            )
        )
