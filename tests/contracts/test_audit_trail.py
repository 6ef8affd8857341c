# SPDX-License-Identifier: Apache-2.0
"""The audit trail is sealed: each row once, whenever it was committed, in a chain that stays whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, text, update

from conferral.domain import audit_trail
from conferral.reliable.tables import attempts
from conferral.services import tenancy
from conferral.services.auditing import sealing
from conferral.store import tables
from support.audited import audited
from support.product import DATABASES, Product, product_on


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database."""
    with product_on(request.param, tmp_path) as built:
        yield built


def seal(product: Product) -> None:
    """Let one firing of the sealing happen, with what it promises to follow."""
    product.promise(sealing.TASK)
    product.run()


def history(product: Product, run_id: str, ended: list[datetime]) -> None:
    """Write attempts of one run that ended at these times."""
    rows: list[dict[str, Any]] = [
        {
            "run_id": run_id,
            "number": number,
            "owner": "o",
            "started_at": at,
            "finished_at": at,
            "outcome": "lost",
        }
        for number, at in enumerate(ended, 1)
    ]
    with product.rt.database.transaction() as session:
        session.execute(insert(attempts), rows)


def sealed(product: Product) -> set[tuple[str, int]]:
    """Return the keys of all seals."""
    return {(row.run_id, row.number) for row in product.rows(tables.audit_seals)}


def unsealed(product: Product) -> set[tuple[str, int]]:
    """Return the keys of attempts without a seal."""
    return {(row.run_id, row.number) for row in product.rows(attempts)} - sealed(product)


def deviations(product: Product) -> list[str]:
    """Return what the audit says of the trail."""
    return [one.line() for one in audited(product.rt, product.settings, "A12")[0]]


def test_every_row_is_sealed_once_when_the_trail_is_sealed(product: Product) -> None:
    """Attempts and lines of the audit log get one seal each; blocks continue each other."""
    product.request()
    product.run()
    seal(product)
    product.request("second@example.com")
    with product.rt.database.transaction() as session:
        tenancy.create_organisation(product.rt, session, "Another School")
    product.run()
    product.time.move(60)
    seal(product)
    assert {task for _, task in unsealed_tasks(product)} <= {sealing.TASK}
    lines = {("audit_log", row.id) for row in product.rows(tables.audit_log)}
    assert lines
    assert lines <= sealed(product)
    first, second = product.rows(tables.audit_blocks)
    assert (first.number, second.number) == (1, 2)
    assert (first.previous, second.previous) == (audit_trail.NOTHING_BEFORE, first.hash)
    assert deviations(product) == []


def unsealed_tasks(product: Product) -> set[tuple[str, str]]:
    """Return (run, task) of attempts without a seal: the last sealing's own."""
    ids = {run_id for run_id, _ in unsealed(product)}
    return {(row.id, row.task) for row in product.rows_of_work() if row.id in ids}


def test_a_row_is_sealed_when_it_was_committed_late(product: Product) -> None:
    """What commits after a block, with an earlier time and a smaller id, is in the next block."""
    product.request()
    product.run()
    product.time.move(60)
    seal(product)
    late = product.time() - timedelta(seconds=45)
    history(product, "00000000-0000-7000-8000-000000000000", [late])
    product.time.move(60)
    seal(product)
    assert ("00000000-0000-7000-8000-000000000000", 1) in sealed(product)


def test_all_is_sealed_when_more_waits_than_a_block_holds(product: Product) -> None:
    """After hours without sealing each pass promises the next, and no hour is left out."""
    seal(product)
    start = product.time()
    times = [start + timedelta(seconds=5 * number) for number in range(2_500)]
    history(product, "run", times)
    product.time.move_to(times[-1] + timedelta(minutes=1))
    seal(product)
    assert {("run", number) for number in range(1, 2_501)} <= sealed(product)
    assert max(row.rows for row in product.rows(tables.audit_blocks)) <= 2 * sealing.AT_ONCE
    assert deviations(product) == []


def test_rows_are_sealed_when_a_clock_was_wrong(product: Product) -> None:
    """A day ahead and back again: what is recorded after that is sealed, and what was recorded meanwhile."""
    history(product, "ahead", [product.time() + timedelta(days=1)])
    product.time.move(86_400)
    seal(product)
    product.time.move(-86_400)
    history(product, "now", [product.time()])
    product.time.move(60)
    seal(product)
    assert {("ahead", 1), ("now", 1)} <= sealed(product)


def test_one_chain_grows_when_two_seal_at_once(product: Product) -> None:
    """Of two that seal the same block one stands back, and promises another look."""
    history(product, "run", [product.time()] * 300)
    run_ids = [product.promise(sealing.TASK) for _ in range(4)]
    threads = [threading.Thread(target=product.run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    product.run()
    states = {row.id: row.state for row in product.runs_of(sealing.TASK)}
    assert {states[run_id] for run_id in run_ids} == {"SUCCESS"}
    assert {("run", number) for number in range(1, 301)} <= sealed(product)
    assert deviations(product) == []


def test_the_chain_holds_when_evidence_is_erased_and_history_forgotten(product: Product) -> None:
    """Erasure clears evidence, a late worker is fenced, retention removes rows: no seal breaks."""
    product.request()
    product.run()
    history(product, "lost", [product.time()])
    seal(product)
    with product.rt.database.transaction() as session:
        session.execute(update(attempts).values(evidence=None))
        session.execute(update(attempts).where(attempts.c.run_id == "lost").values(outcome="fenced"))
    assert deviations(product) == []
    with product.rt.database.transaction() as session:
        session.execute(delete(attempts).where(attempts.c.run_id == "lost"))
        mine = tables.audit_seals.c.run_id == "lost"
        session.execute(update(tables.audit_seals).where(mine).values(forgotten_at=product.time()))
    assert deviations(product) == []


def test_what_was_passed_over_is_said_when_every_pass_has_looked(product: Product) -> None:
    """A row that no block sealed within two days is a deviation: it can be changed unseen."""
    seal(product)
    history(product, "old", [product.time() - timedelta(days=3)])
    with product.rt.database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO runs (id, task, queue, args, priority, state, due_at, created_at)"
                " SELECT 'old', task, queue, args, priority, 'SUCCESS', due_at, created_at FROM runs LIMIT 1"
            )
        )
    product.time.move(60)
    seal(product)
    assert deviations(product) == ["A12 run old attempt 1 was never sealed"]
