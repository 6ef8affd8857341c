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
from datetime import timedelta

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


@dataclass(frozen=True, slots=True)
class Presence:
    """How this process appears in `workers`."""

    node: str
    pool: str
    queues: tuple[str, ...]
    slots: int


class Holding:
    """What this process has claimed and not yet ended."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._held: dict[str, float] = {}  # run id -> monotonic time at which its lease ends
        self._lock = threading.Lock()
        self._presence: Presence | None = None
        self._started_at = context.now()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.owner = this_process()

    def start(self, presence: Presence | None = None) -> None:
        """Start renewing; with a presence also say every time that we are alive."""
        self._presence = presence
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; what is still held comes back when its lease ends."""
        self._stopped.set()

    def add(self, claimed: Iterable[Run]) -> None:
        """Renew these from now on."""
        until = time.monotonic() + self._context.lease_seconds
        with self._lock:
            for run in claimed:
                self._held[run.id] = until
                run.lease_left = functools.partial(self.seconds_left, run.id)
                run.let_go = functools.partial(self.drop, run.id)

    def drop(self, run_id: str) -> None:
        """Stop renewing one run."""
        with self._lock:
            self._held.pop(run_id, None)

    def seconds_left(self, run_id: str) -> float:
        """Return how long the lease of a run surely lasts, from memory."""
        with self._lock:
            return self._held.get(run_id, 0.0) - time.monotonic()

    def _beat(self) -> None:
        while True:
            try:
                self.renew()
            except SQLAlchemyError as error:
                # The next beat comes well before the lease ends; the fence covers the rest.
                log.warning("heartbeat_failed", extra={"code": type(error).__name__})
            if self._stopped.wait(self._context.heartbeat_seconds):
                return

    def renew(self) -> None:
        """Renew every held lease in one statement, and our presence."""
        with self._lock:
            held = list(self._held)
        if not held and self._presence is None:
            return
        began = time.monotonic()
        with self._context.transaction() as session:
            now = terms_of(session).now()
            until = now + timedelta(seconds=self._context.lease_seconds)
            renewed: list[str] = []
            if held:
                renewed = list(
                    session.execute(
                        update(runs)
                        .where(runs.c.id.in_(held), LEASED, runs.c.lease_owner == self.owner)
                        .values(lease_until=until)
                        .returning(runs.c.id)
                    ).scalars()
                )
            if self._presence is not None:
                self._say_present(session, self._presence)
        with self._lock:
            for run_id in renewed:
                if run_id in self._held:
                    self._held[run_id] = began + self._context.lease_seconds

    def _say_present(self, session: Session, presence: Presence) -> None:
        now = terms_of(session).now()
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
                index_elements=[workers.c.node, workers.c.pid], set_={"seen_at": now}
            )
        )
