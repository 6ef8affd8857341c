# SPDX-License-Identifier: Apache-2.0
"""A whole batch revoked, suspended, reinstated: in chunks that may die, with one signature a list.

Short by default; `--long` revokes 10,000.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from conferral.domain.problems import Problem
from conferral.domain.status_change import REINSTATE, REVOKE, SUSPEND, Verb
from conferral.reliable.tables import runs
from conferral.reliable.testing import crash_at
from conferral.services import changing_batches, changing_status
from conferral.services.changing_batches import Preview
from conferral.services.status_lists import PUBLISH_TASK
from conferral.store import tables
from support.product import DATABASES, Product, product_on
from support.statuses import (
    SUSPENDABLE,
    change,
    issued_rows,
    lists_equal_rows,
    signatures,
    suspendable_template,
)

TASK = changing_batches.TASK


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database, its lists signed a minute ago."""
    with product_on(request.param, tmp_path) as built:
        suspendable_template(built)
        built.run_only(PUBLISH_TASK)
        built.time.move(60)
        yield built


def asked(product: Product, verb: Verb, reason: str | None = None) -> tuple[Preview, str | None]:
    """Ask for a verb to be said to the only batch."""
    (batch,) = product.rows(tables.batches)
    with product.rt.database.transaction() as session:
        return changing_batches.request(product.rt, session, product.caller, verb, batch.id, reason=reason)


def worked(product: Product) -> None:
    """Execute the runs of the change until none is promised."""
    while any(run.state in ("PENDING", "RETRY", "STARTED") for run in product.runs_of(TASK)):
        product.run_only(TASK)
        product.time.move(31)


def test_a_batch_is_revoked_once_with_one_signature_when_a_worker_dies(
    product: Product, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each credential changes once and is told once; the list is signed once, after the last chunk."""
    count = 10_000 if request.config.getoption("--long") else 2_300
    issued_rows(product, count, batch=True)
    before = signatures(product)
    began = time.monotonic()
    counts, run_id = asked(product, REVOKE, "issued_in_error")
    assert (counts.affected, counts.others) == (count, {})
    assert run_id is not None
    with crash_at("status.chunk_committed", nth=2):
        product.run_only(TASK)
    product.time.move(31)
    worked(product)
    seconds = time.monotonic() - began
    product.run_only(PUBLISH_TASK)
    rows = product.rows(tables.credentials)
    assert Counter((row.state, row.status_reason) for row in rows) == {("revoked", "issued_in_error"): count}
    assert len(product.rows(tables.events, tables.events.c.type == "credential.revoked")) == count
    assert len(product.rows(tables.deliveries, tables.deliveries.c.kind == "revoked")) == count
    lines = product.rows(tables.audit_log, tables.audit_log.c.action == "credential.revoked")
    assert (len(lines), {line.actor for line in lines}) == (count, {"test"})
    assert lists_equal_rows(product)
    signed = signatures(product) - before
    assert signed == 1
    with capsys.disabled():
        sys.stdout.write(
            f"\n{product.rt.database.engine.dialect.name}: {count:,} revoked in {seconds:.1f} s by "
            f"{len(product.runs_of(TASK))} runs; list signed {signed} time\n"
        )


def test_the_list_is_signed_before_long_when_the_last_chunk_never_comes(product: Product) -> None:
    """Every chunk promises the signature, only later: a change that is stuck does not hide what it did."""
    issued_rows(product, 600, batch=True)
    before = signatures(product)
    asked(product, REVOKE)
    with crash_at("status.chunk_committed"):
        product.run_only(TASK)
    product.run_only(PUBLISH_TASK)
    assert signatures(product) == before
    product.time.move(30)
    product.run_only(PUBLISH_TASK)
    assert signatures(product) == before + 1
    assert lists_equal_rows(product)


def test_a_batch_is_suspended_and_comes_back_when_its_template_allows_it(product: Product) -> None:
    """One that was revoked by itself stays revoked; the others come back."""
    ids = issued_rows(product, 40, template=SUSPENDABLE, batch=True)
    change(product, REVOKE, ids[0])
    assert asked(product, SUSPEND, "under_review")[0] == Preview(39, {"revoked": 1})
    worked(product)
    assert Counter(row.state for row in product.rows(tables.credentials)) == {"suspended": 39, "revoked": 1}
    assert asked(product, REINSTATE)[0] == Preview(39, {"revoked": 1})
    worked(product)
    product.run_only(PUBLISH_TASK)
    assert Counter(row.state for row in product.rows(tables.credentials)) == {"issued": 39, "revoked": 1}
    assert lists_equal_rows(product)


def test_a_plain_batch_is_not_suspended_when_somebody_tries(product: Product) -> None:
    """409 says what can be done; asking for what was done already promises nothing."""
    issued_rows(product, 3, batch=True)
    with pytest.raises(Problem, match="state_conflict"):
        asked(product, SUSPEND)
    asked(product, REVOKE)
    worked(product)
    assert asked(product, REVOKE) == (Preview(0, {"revoked": 3}), None)


def test_a_named_few_are_changed_and_the_others_said_when_some_cannot_be(product: Product) -> None:
    """What is unknown, done already or not possible is named and left alone."""
    plain, paused = issued_rows(product, 2), issued_rows(product, 2, template=SUSPENDABLE)
    change(product, SUSPEND, paused[0])
    unknown = "cred_00000000000000000000000000"
    with product.rt.database.transaction() as session:
        done = changing_status.change_many(
            product.rt, session, product.caller, SUSPEND, [*plain, *paused, unknown],
            reason=None, group="chg_1", is_last=True,
        )  # fmt: skip
    assert done.changed == (paused[1],)
    assert set(done.unchanged) == {*plain, paused[0], unknown}
    assert done.unchanged[paused[0]] == "it is suspended already"


@pytest.mark.parametrize("days", [0, 2])
def test_a_list_is_promised_again_when_its_signature_was_lost(product: Product, days: int) -> None:
    """Lists that changed after their signature, and those of more than 25 hours ago, are found."""
    (credential_id,) = issued_rows(product, 1)
    if days == 0:
        change(product, REVOKE, credential_id)
    product.time.move(days * 86_400 + 300)
    _forget_publishing(product)
    product.promise("tasks.issuance.retry_stuck")
    product.run_only("tasks.issuance.retry_stuck")
    (found,) = [run.result for run in product.runs_of("tasks.issuance.retry_stuck")]
    assert found["lists"] == (1 if days == 0 else len(product.rows(tables.status_lists)))
    product.run_only(PUBLISH_TASK)
    assert lists_equal_rows(product)


def _forget_publishing(product: Product) -> None:
    """End the runs that would sign, as a defect or a person's discard would."""
    with product.rt.database.transaction() as session:
        session.execute(update(runs).where(runs.c.task == PUBLISH_TASK).values(state="REVOKED"))
