# SPDX-License-Identifier: Apache-2.0
"""Pause, resume, cancel and retry of a batch: what begins, what does not, and under which identity."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conferral import wiring
from conferral.domain.problems import Problem
from conferral.reliable import tables as runs_tables
from conferral.reliable.holding import Holding
from conferral.reliable.task import Executor
from conferral.reliable.testing import crash_at
from conferral.services import admission, batching, steering_batches
from conferral.services.admission import Wanted
from conferral.services.batching import Row
from conferral.store import tables
from conferral.tasks.celery_app import TASKS
from support.product import DATABASES, Product, product_on

ROWS = 12


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """Yield the product on each database in turn."""
    with product_on(request.param, tmp_path) as made:
        yield made


def made(product: Product, *emails: str) -> str:
    """Make a batch; return its id."""
    addresses = emails or tuple(f"r{n}@example.com" for n in range(ROWS))
    rows = [
        Row(
            n,
            Wanted(template="diploma", recipient_name=f"=R{n}", recipient_email=one, fields={"course": "C"}),
        )
        for n, one in enumerate(addresses, 1)
    ]
    with product.rt.database.transaction() as session:
        template = admission.find_template(session, product.caller.organisation_id, "diploma")
        return batching.create(product.rt, session, product.caller, template, rows, name="a batch")


def say(product: Product, verb: Any, batch_id: str) -> Any:
    """Say a verb to a batch in a transaction of its own."""
    with product.rt.database.transaction() as session:
        return verb(product.rt, session, product.caller, batch_id)


def states(product: Product) -> Counter[str]:
    """Count credentials by state."""
    return Counter(row.state for row in product.rows(tables.credentials))


def expanded(product: Product) -> str:
    """Return a batch whose rows are credentials, none of them begun."""
    batch_id = made(product)
    product.run_only(batching.TASK)
    assert states(product) == {"queued": ROWS}
    return batch_id


def table_of(product: Product, batch_id: str) -> list[dict[str, str]]:
    """Return the results of a batch, read as a spreadsheet would."""
    with product.rt.database.snapshot() as session:
        (batch,) = [row for row in session.execute(tables.batches.select()) if row.id == batch_id]
    text = "".join(steering_batches.results(product.rt, batch))
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


def test_nothing_begins_while_a_batch_is_paused(product: Product) -> None:
    """And everything when it is resumed; both may be said twice."""
    batch_id = expanded(product)
    for _ in range(2):
        assert say(product, steering_batches.pause, batch_id).affected == ROWS
    product.run(patience_seconds=60)
    assert states(product) == {"queued": ROWS}
    for _ in range(2):
        say(product, steering_batches.resume, batch_id)
    product.run(patience_seconds=60)
    assert states(product) == {"issued": ROWS}
    assert len(product.mailbox()) == ROWS
    with pytest.raises(Problem) as refused:
        say(product, steering_batches.pause, batch_id)
    assert refused.value.code == "state_conflict"


def test_no_row_begins_after_a_cancel_and_each_says_why(product: Product) -> None:
    """What was issued stays and is mailed; the others are failed, not lost."""
    batch_id = expanded(product)
    begun = product.runs_of("tasks.issuance.issue_credential")[:3]
    for row in begun:
        _execute(product, row)
    assert states(product) == {"queued": ROWS - 3, "issuing": 3}
    done = say(product, steering_batches.cancel, batch_id)
    assert (done.affected, done.others) == (ROWS - 3, {"issuing": 3})
    product.run(patience_seconds=60)
    assert states(product) == {"failed": ROWS - 3, "issued": 3}
    assert len(product.mailbox()) == 3
    told = Counter((row["state"], row["reason"]) for row in table_of(product, batch_id))
    assert told == {("failed", "cancelled"): ROWS - 3, ("issued", ""): 3}
    assert product.rows(runs_tables.pauses) == []
    assert say(product, steering_batches.cancel, batch_id).run_id is None


def test_rows_that_are_no_credentials_yet_are_never_made_when_cancelled(product: Product) -> None:
    """A batch that is cancelled before it is expanded makes nothing, and says so row by row."""
    batch_id = made(product)
    assert say(product, steering_batches.cancel, batch_id).affected == ROWS
    product.run(patience_seconds=60)
    assert product.rows(tables.credentials) == []
    assert {(row["state"], row["reason"]) for row in table_of(product, batch_id)} == {
        ("not_created", "cancelled")
    }


def test_retry_does_what_was_cancelled_under_the_same_identity(product: Product) -> None:
    """Cancelled rows and rows that never were become credentials; nobody gets a second one."""
    batch_id = expanded(product)
    before = {row.id for row in product.rows(tables.credentials)}
    say(product, steering_batches.cancel, batch_id)
    product.run(patience_seconds=60)
    done = say(product, steering_batches.retry, batch_id)
    assert done.affected == ROWS
    product.run(patience_seconds=60)
    assert states(product) == {"issued": ROWS}
    assert {row.id for row in product.rows(tables.credentials)} == before
    assert len(product.mailbox()) == ROWS
    assert say(product, steering_batches.retry, batch_id).affected == 0


def test_missing_rows_are_made_when_a_cancelled_batch_is_retried(product: Product) -> None:
    """The expansion goes through the rows once more."""
    batch_id = made(product)
    say(product, steering_batches.cancel, batch_id)
    product.run(patience_seconds=60)
    say(product, steering_batches.retry, batch_id)
    product.run(patience_seconds=60)
    assert states(product) == {"issued": ROWS}


def test_only_failed_rows_are_retried(product: Product) -> None:
    """What is issued is neither issued nor mailed again."""
    batch_id = made(product, "ada@example.com", "bad-data@test.invalid")
    product.run(patience_seconds=60)
    assert states(product) == {"issued": 1, "failed": 1}
    assert say(product, steering_batches.retry, batch_id).affected == 1
    product.run(patience_seconds=60)
    assert states(product) == {"issued": 1, "failed": 1}
    assert len(product.mailbox()) == 1
    attempts = Counter(row.outcome for row in product.rows(runs_tables.attempts))
    assert attempts["failure"] == 2


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_verb_is_finished_when_its_process_dies_between_two_chunks(
    product: Product, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk is a commit; whoever comes next goes on."""
    monkeypatch.setattr(steering_batches, "CHUNK", 5)
    batch_id = expanded(product)
    say(product, steering_batches.cancel, batch_id)
    if verb == "retry":
        product.run(patience_seconds=60)
        say(product, steering_batches.retry, batch_id)
    point = {"cancel": "batch.chunk_cancelled", "retry": "batch.chunk_retried"}[verb]
    with crash_at(point):
        product.run(patience_seconds=5)
    product.run(patience_seconds=120)
    assert states(product) == ({"failed": ROWS} if verb == "cancel" else {"issued": ROWS})


def test_no_cell_of_the_results_is_a_formula(product: Product) -> None:
    """A name that begins with = is text to a spreadsheet."""
    batch_id = made(product)
    assert {row["recipient_name"] for row in table_of(product, batch_id)} == {
        f"'=R{n}" for n in range(1, ROWS + 1)
    }


def _execute(product: Product, row: Any) -> None:
    context = wiring.context_of(product.settings, product.rt)
    Executor(context, TASKS, Holding(context)).execute(row.task, [row.id])
