# SPDX-License-Identifier: Apache-2.0
"""POSTs that create: done once, however often they are sent with one Idempotency-Key.

The stored answer, the resource and its promise are one commit. What is rolled back stores
nothing, so a repetition does the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from flask import Response, g, request
from sqlalchemy.orm import Session

from conferral.domain.problems import Problem
from conferral.reliable.crash_points import crash_point
from conferral.services import idempotency
from conferral.services.idempotency import Answer, AnsweredMeanwhile, Question
from conferral.web.site import caller, runtime

ROUNDS: Final = 3  # each loser of a race finds the winner's answer in the next round


def once(
    work: Callable[[Session], Answer], *, required: bool = False, shown_once: str | None = None
) -> Response:
    """Do the work in one transaction, or repeat the answer it had.

    Args:
        work: changes and promises in the given session; returns what to answer.
        required: whether the request must carry an Idempotency-Key.
        shown_once: a member of the answer that is a secret: it is null in the stored answer.

    Raises:
        Problem: `idempotency_key_required`, `…_invalid`, `…_reused`, `idempotency_in_progress`.
    """
    question = _question()
    if question is None:
        if required:
            raise Problem("idempotency_key_required", "this request creates much; it needs a key of its own")
        with runtime().database.transaction() as session:
            return _response(work(session))
    for _ in range(ROUNDS):
        found = _earlier(question) or _attempt(question, work, shown_once)
        if found is not None:
            return _response(found)
    raise idempotency.in_progress()


def json_answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer whose body is a JSON object."""
    return Answer(status, dict(headers or {}), json.dumps(body).encode())


def _question() -> Question | None:
    key = idempotency.read_key(request.headers.get("Idempotency-Key"))
    if key is None:
        return None
    # The short addresses are aliases: a repetition may come by the other name.
    path = request.path if request.path.startswith("/v1/") else f"/v1{request.path}"
    operation = f"{request.method} {path}"
    canonical = json.dumps(g.json, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return Question(operation, key, idempotency.fingerprint(operation, canonical.encode()))


def _earlier(question: Question) -> Answer | None:
    with runtime().database.snapshot() as session:
        return idempotency.earlier_answer(session, caller(), question)


def _attempt(question: Question, work: Callable[[Session], Answer], shown_once: str | None) -> Answer | None:
    rt = runtime()
    try:
        with rt.database.transaction() as session:
            idempotency.reserve(rt, session, caller(), question)
            answer = work(session)
            idempotency.remember(session, caller(), question, _without(answer, shown_once))
    except AnsweredMeanwhile:
        return None
    crash_point("accept.after_commit")
    return answer


def _without(answer: Answer, secret: str | None) -> Answer:
    if secret is None:
        return answer
    return json_answer(answer.status, {**json.loads(answer.body), secret: None}, answer.headers)


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status, mimetype="application/json")
    response.headers.update(answer.headers)
    if answer.is_replayed:
        response.headers["Idempotency-Replayed"] = "true"
        g.is_replayed = True
    return response
