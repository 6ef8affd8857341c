# SPDX-License-Identifier: Apache-2.0
"""Record an effect that has happened: patiently, because what is not recorded is done again.

The peer's answer is known here and nowhere else. A database that is locked, cut or restarted at this very
moment must not turn it into a second mail; a commit whose answer was lost must not look like a failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from conferral.reliable.errors import LeaseLost
from conferral.reliable.runs import Run
from conferral.reliable.tables import SUCCESS, attempts

log = logging.getLogger(__name__)

# Longer than a restart of PostgreSQL. Nobody else can take the run as long as the database is away; when it
# is back, the first to come decides, so the pause is shorter than the dispatcher's.
PATIENCE_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 0.25


def record(
    transaction: Callable[[], AbstractContextManager[Session]], run: Run, write: Callable[[Session], None]
) -> None:
    """Commit what `write` does, the run's settling among it; again and again while the database is away.

    Args:
        transaction: opens a write transaction that commits at its end.
        run: whose effect it is; `write` settles it.
        write: called anew for each try, in a transaction of its own.

    Raises:
        LeaseLost: somebody else has the run, and nothing of this was recorded.
        SQLAlchemyError: the database refuses it, or is away for longer than anybody waits.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    tries = 0
    while True:
        tries += 1
        try:
            with transaction() as session:
                if tries > 1 and _is_recorded(session, run):
                    run.outcome = SUCCESS  # the commit had arrived; only its answer was lost
                    return
                write(session)
        except (DBAPIError, PoolTimeoutError) as error:
            run.outcome = None
            if not _is_away(error) or time.monotonic() > deadline:
                raise
            extra = {"run_id": run.id, "task": run.task, "tries": tries, "code": type(error).__name__}
            log.warning("effect_not_recorded_yet", extra=extra)
        else:
            return
        time.sleep(PAUSE_SECONDS)


def _is_recorded(session: Session, run: Run) -> bool:
    """Return whether this very attempt stands in the history as a success."""
    mine = (attempts.c.run_id == run.id, attempts.c.number == run.number, attempts.c.owner == run.owner)
    found = session.execute(select(attempts.c.outcome).where(*mine)).scalar_one_or_none()
    if found is not None and found != "success":
        raise LeaseLost(f"run {run.id}, attempt {run.attempt}: it was given up while the database was away")
    return found is not None


def _is_away(error: DBAPIError | PoolTimeoutError) -> bool:
    """Return whether waiting may help: a database that is gone, locked or full, and not one that refuses."""
    if isinstance(error, PoolTimeoutError | OperationalError | InterfaceError):
        return True
    return error.connection_invalidated
