# SPDX-License-Identifier: Apache-2.0
"""A request that is repeated while the first one still runs, on PostgreSQL, where two can be under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conferral.services import idempotency
from conferral.services.idempotency import Question
from conferral.store import tables
from support.product import product_on
from support.web import ISSUE, Web, body, web_of

KEY = "sent-twice"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Yield the application on PostgreSQL."""
    with product_on("postgresql", tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


def test_repetition_is_told_to_come_back_after_two_seconds_when_the_first_still_runs(web: Web) -> None:
    """409 with Retry-After, without having done any of the work; afterwards the key is free, or answered."""
    web.post(ISSUE, body(), Idempotency_Key="opens-connections")
    rt, who = web.product.rt, web.product.caller
    operation = f"POST /v1{ISSUE}"
    question = Question(operation, KEY, idempotency.fingerprint(operation, b"{}"))
    reserved, done = threading.Event(), threading.Event()

    def first() -> None:
        with rt.database.transaction() as session:
            idempotency.reserve(rt, session, who, question)
            reserved.set()
            done.wait(30)
            session.rollback()

    other = threading.Thread(target=first)
    other.start()
    try:
        assert reserved.wait(10)
        began = time.monotonic()
        answer = web.post(ISSUE, body("bob@example.com"), Idempotency_Key=KEY)
        waited = time.monotonic() - began
    finally:
        done.set()
        other.join(10)
    assert (answer.status_code, answer.json["code"]) == (409, "idempotency_in_progress")
    assert "Retry-After" in answer.headers
    assert idempotency.WAIT_SECONDS * 0.9 < waited < 4.5  # PostgreSQL's own limit is 5 s
    assert len(web.product.rows(tables.credentials)) == 1
    again = web.post(ISSUE, body("bob@example.com"), Idempotency_Key=KEY)
    assert (again.status_code, len(web.product.rows(tables.credentials))) == (202, 2)


def test_nothing_is_reserved_when_the_work_is_refused(web: Web) -> None:
    """A 422 stores nothing: the same key may be sent with what was mended."""
    refused = web.post(ISSUE, body(recipient={"name": "Ada", "email": "nowhere"}), Idempotency_Key=KEY)
    assert refused.status_code == 422
    mended = web.post(ISSUE, body(), Idempotency_Key=KEY)
    assert mended.status_code == 202
    (kept,) = web.product.rows(tables.idempotency_keys)
    assert (kept.status, bytes(kept.body)) == (202, mended.data)
