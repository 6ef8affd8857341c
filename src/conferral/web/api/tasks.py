# SPDX-License-Identifier: Apache-2.0
"""Runs as clients see them: one status, read from the rows and never from Celery."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from flask import Response, jsonify
from sqlalchemy.orm import Session

from conferral.domain.problems import Problem
from conferral.reliable import status
from conferral.reliable.status import RunStatus
from conferral.reliable.tables import FAILURE, REVOKED, SUCCESS
from conferral.services.runtime import Caller
from conferral.store.queries import batches, credentials, deliveries
from conferral.web.api import blueprint, wire
from conferral.web.api.models import NOT_FOUND, PURGED, TaskPath, WaitQuery
from conferral.web.api.outputs import TaskOut
from conferral.web.gate import needs
from conferral.web.site import caller, runtime, site

api = blueprint("tasks")

KEPT: Final = timedelta(days=30)  # maintenance runs; a credential's live as long as it
ANSWERS: Final[dict[Any, Any]] = {200: TaskOut, **NOT_FOUND, **PURGED}
FINAL: Final = frozenset({SUCCESS, FAILURE, REVOKED})
_RUN_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

Seen = tuple[RunStatus, bool] | None


@api.get("/tasks/<task_id>/status", endpoint="status_alias", responses=ANSWERS)
@api.get("/v1/tasks/<task_id>/status", responses=ANSWERS)
@needs("credentials:read")
def task_status(path: TaskPath, query: WaitQuery) -> Response:
    """Return the state of a task; `wait` holds the answer until the task has ended, 25 s at most."""
    task_id = path.task_id.lower()
    if _RUN_ID.fullmatch(task_id) is None:
        raise Problem("not_found", "there is no such task")
    who = caller()
    seen: Seen = site().patience.watch(lambda: _look(who, task_id), _is_enough, query.wait)
    if seen is None:
        raise _unknown(task_id)
    found, possible_duplicate = seen
    return jsonify(wire.task_status(found, possible_duplicate=possible_duplicate))


def _look(who: Caller, task_id: str) -> Seen:
    with runtime().database.snapshot() as session:
        found = status.status_of(session, task_id)
        if found is None or not may_see(session, who, found):
            return None
        delivery = deliveries.of_run(session, task_id)
    return found, bool(delivery is not None and delivery.possible_duplicate)


def may_see(session: Session, who: Caller, found: RunStatus) -> bool:
    """Return whether a run is the caller's: organisation and mode; nobody's runs are the operators'."""
    if found.tenant != who.organisation_id:
        return not found.tenant and "ops:read" in who.scopes
    subject = found.subject or ""
    row: Any = None
    if subject.startswith("cred_"):
        row = credentials.of_organisation(session, who.organisation_id, who.mode, subject)
    elif subject.startswith("bat_"):
        row = batches.batch(session, who.organisation_id, subject)
        return row is not None and row.mode == who.mode
    else:
        return True
    return row is not None


def _is_enough(seen: Seen) -> bool:
    return seen is None or seen[0].state in FINAL


def _unknown(task_id: str) -> Problem:
    """Tell an id that never was from one of a maintenance run that is no longer kept."""
    made = datetime.fromtimestamp((UUID(task_id).int >> 80) / 1000, UTC)
    if runtime().database.now() - made > KEPT:
        return Problem("task_purged", f"maintenance runs are kept {KEPT.days} days, and this id is older")
    return Problem("not_found", "there is no such task")
