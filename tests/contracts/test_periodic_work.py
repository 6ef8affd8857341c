# SPDX-License-Identifier: Apache-2.0
"""The three schedules, by a clock that stands: each slot once, and each does what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from conferral.reliable.beat import due_slots
from conferral.reliable.tables import runs
from conferral.services import tenancy
from conferral.store import tables
from conferral.tasks.celery_app import app
from support.product import DATABASES, Product, product_on

STUCK = "tasks.issuance.retry_stuck"


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database."""
    with product_on(request.param, tmp_path) as built:
        yield built


def test_each_schedule_fires_at_its_time_when_a_day_passes() -> None:
    """Over a day: the purge at 02:00, the report at 06:00, the search for stuck ones every 15 minutes."""
    fired: dict[str, set[datetime]] = {}
    moment = datetime(2026, 3, 1, 0, 0, 30, tzinfo=UTC)
    for minute in range(24 * 60):
        for slot in due_slots(app, moment + timedelta(minutes=minute)):
            if slot.at >= moment.replace(second=0):
                fired.setdefault(slot.entry, set()).add(slot.at)
    assert fired["purge_expired_sessions"] == {datetime(2026, 3, 1, 2, tzinfo=UTC)}
    assert fired["generate_daily_issuance_report"] == {datetime(2026, 3, 1, 6, tzinfo=UTC)}
    assert len(fired["retry_stuck"]) == 96
    assert {at.minute for at in fired["retry_stuck"]} == {0, 15, 30, 45}


def test_expired_sessions_go_and_live_ones_stay_when_the_purge_runs(product: Product) -> None:
    """Only what has expired is deleted."""
    rt = product.rt
    with rt.database.transaction() as session:
        tenancy.create_user(rt, session, "kim@example.com", "Kim", "correct horse")
    old = tenancy.sign_in(rt, "kim@example.com", "correct horse")
    product.time.move(tenancy.SESSION_FOR.total_seconds() - 60)
    young = tenancy.sign_in(rt, "kim@example.com", "correct horse")
    product.time.move(120)
    product.promise("tasks.cleanup.purge_expired_sessions")
    product.run()
    assert len(product.rows(tables.sessions)) == 1
    assert tenancy.signed_in(rt, old.cookie) is None
    assert tenancy.signed_in(rt, young.cookie) is not None


def test_a_credential_is_issued_when_its_run_was_lost(
    product: Product, caplog: pytest.LogCaptureFixture
) -> None:
    """The search revives the run of a credential that is not final, and says so loudly."""
    accepted = product.request()
    with product.rt.database.transaction() as session:  # what no defect of ours should ever do
        session.execute(update(runs).where(runs.c.id == accepted.run_id).values(state="SUCCESS"))
    product.time.move(16 * 60)
    product.promise(STUCK)
    product.run()
    assert product.credential(accepted.credential_id).state == "issued"
    assert "stuck_credential_revived" in caplog.text


def test_nothing_is_revived_when_nobody_asked_to_issue_it(product: Product) -> None:
    """A credential made with `issue: false` is queued without a run, and the search leaves it alone."""
    accepted = product.request(issue=False)
    product.time.move(16 * 60)
    product.promise(STUCK)
    product.run()
    assert accepted.run_id is None
    assert product.credential(accepted.credential_id).state == "queued"


def test_a_waiting_leaf_is_sequenced_when_its_turn_was_lost(product: Product) -> None:
    """Leaves that wait for more than half a minute get a turn of the log."""
    accepted = product.request()
    product.run_only("tasks.issuance.issue_credential")
    with product.rt.database.transaction() as session:
        session.execute(update(runs).where(runs.c.task == "tasks.anchoring.sequence").values(state="SUCCESS"))
    product.time.move(60)
    product.promise(STUCK)
    product.run()
    assert product.credential(accepted.credential_id).state == "issued"
