# SPDX-License-Identifier: Apache-2.0
"""Pause, resume, cancel, retry a batch; what became of its rows as a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Response
from sqlalchemy.orm import Session

from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.services import changing_batches, steering_batches
from conferral.services.idempotency import Answer
from conferral.services.runtime import Caller, Runtime
from conferral.services.steering_batches import Steered
from conferral.web import idempotent
from conferral.web.api import blueprint, outputs
from conferral.web.api.models import CONFLICT, NOT_FOUND, BatchPath, file_of
from conferral.web.gate import needs
from conferral.web.site import caller, runtime

api = blueprint("batch_steering")

ACCEPTED: Final = 202
STEERED: Final[dict[Any, Any]] = {ACCEPTED: outputs.BatchChangedOut, **NOT_FOUND, **CONFLICT}

Verb = Callable[[Runtime, Session, Caller, str], Steered]


@api.post("/v1/batches/<batch_id>/pause", responses=STEERED)
@needs("batches:write")
def pause(path: BatchPath) -> Response:
    """Let nothing of a batch begin, mail and webhooks included; what has begun is finished."""
    return _steer(steering_batches.pause, path)


@api.post("/v1/batches/<batch_id>/resume", responses=STEERED)
@needs("batches:write")
def resume(path: BatchPath) -> Response:
    """Let a paused batch go on."""
    return _steer(steering_batches.resume, path)


@api.post("/v1/batches/<batch_id>/cancel", responses=STEERED)
@needs("batches:write")
def cancel(path: BatchPath) -> Response:
    """Begin no further row; those not begun become `failed` with the code `cancelled`."""
    return _steer(steering_batches.cancel, path)


@api.post("/v1/batches/<batch_id>/retry", responses=STEERED)
@needs("batches:write")
def retry(path: BatchPath) -> Response:
    """Do failed, cancelled and missing rows again, each under its own identity."""
    return _steer(steering_batches.retry, path)


@api.get("/v1/batches/<batch_id>/results", responses={200: file_of("text/csv"), **NOT_FOUND})
@needs("batches:read")
def results(path: BatchPath) -> Response:
    """Return every row with its state, reason and addresses, as a CSV file without formulas."""
    rt, batch_id = runtime(), _id(path)
    with rt.database.snapshot() as session:
        batch = changing_batches.named(session, caller(), batch_id)
    lines = (line.encode() for line in steering_batches.results(rt, batch))
    answer = Response(lines, mimetype="text/csv")
    answer.headers["Content-Disposition"] = f'attachment; filename="{batch_id}.csv"'
    return answer


def _steer(verb: Verb, path: BatchPath) -> Response:
    batch_id = _id(path)

    def work(session: Session) -> Answer:
        done = verb(runtime(), session, caller(), batch_id)
        told = {"affected": done.affected, "others": done.others, "task_id": done.run_id}
        return idempotent.json_answer(ACCEPTED, {"batch_id": batch_id, **told})

    return idempotent.once(work)


def _id(path: BatchPath) -> str:
    if not is_id(path.batch_id, "bat"):
        raise Problem("not_found", "there is no such batch")
    return path.batch_id
