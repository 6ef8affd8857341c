# SPDX-License-Identifier: Apache-2.0
"""The audit of a healthy product, on SQLite and PostgreSQL: nothing deviates, also beside live work."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.audited import Copy, audited, copy_of_healthy
from support.product import DATABASES, product_on


@pytest.fixture(params=DATABASES)
def healthy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Copy]:
    """A product that has lived through everything once, on each database."""
    with copy_of_healthy(request.param, tmp_path) as copy:
        yield copy


def test_nothing_deviates_when_all_is_well(healthy: Copy) -> None:
    """Retries, losses, failures, replays and changed standings are no deviations."""
    began = time.perf_counter()
    deviations, remarks, tally = healthy.audited()
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\n{tally.line(seconds)}; {1000 * seconds / tally.credentials:.1f} s per 1,000; {memory} MB")  # noqa: T201 -- figures
    assert [one.line() for one in deviations] == []
    assert [one.line() for one in remarks] == ["A6 no chain configured"]
    assert tally.credentials > 38
    assert tally.log > 30


def test_only_what_was_asked_for_is_checked_when_checks_are_named(healthy: Copy) -> None:
    """`--only` leaves everything else alone."""
    deviations, remarks, tally = healthy.audited("A5")
    assert (deviations, remarks, tally.runs) == ([], [], 0)


@pytest.mark.parametrize("kind", DATABASES)
def test_nothing_deviates_when_work_goes_on_meanwhile(kind: str, tmp_path: Path) -> None:
    """What is under way is never taken for a deviation: audits run while credentials are issued."""
    found: list[str] = []
    audits = 0
    is_over = threading.Event()

    with product_on(kind, tmp_path) as product:

        def audit() -> None:
            nonlocal audits
            while not is_over.is_set():
                deviations, _, _ = audited(product.rt, product.settings)
                found.extend(one.line() for one in deviations)
                audits += 1

        auditor = threading.Thread(target=audit)
        auditor.start()
        try:
            for number in range(60):
                product.request(f"p{number}@example.com")
                if number % 3 == 2:
                    product.run()
        finally:
            is_over.set()
            auditor.join()
    assert found == []
    assert audits > 3
