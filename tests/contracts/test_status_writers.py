# SPDX-License-Identifier: Apache-2.0
"""Many processes that admit and revoke at once, while others sign the list: nothing twice, nothing lost.

Short by default; `--long` is the full form: 16 writers, 20,000 indices, 5,000 revocations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import support
from conferral.store import tables
from support.product import DATABASES, Product, product_on
from support.statuses import CREDENTIAL, issued_rows, lists_equal_rows, set_bits, signatures

PUBLISHERS = 2
OVERLAP = 10  # every tenth credential is revoked by two writers
SECONDS = 900


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database."""
    with product_on(request.param, tmp_path) as built:
        yield built


def test_no_index_is_given_twice_and_no_revocation_is_lost_when_many_write_at_once(
    product: Product, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every admitted credential has its own index, every revoked one its bit, its event and its mail."""
    writers, wanted, count = (16, 20_000, 5_000) if request.config.getoption("--long") else (4, 400, 100)
    ids = issued_rows(product, count)
    product.run_only("tasks.issuance.publish_status_list")
    before = signatures(product)
    done, seconds = _race(product, ids, writers=writers, wanted=wanted)
    assert sum(one["admitted"] for one in done) == wanted
    assert sum(one["revoked"] for one in done) == count
    rows = product.rows(tables.credentials)
    places = {(row.status_list_number, row.status_index) for row in rows}
    assert len(places) == len(rows) == wanted + count
    assert {row.state for row in rows if row.id in set(ids)} == {"revoked"}
    assert len(product.rows(tables.events, tables.events.c.type == "credential.revoked")) == count
    assert len(product.rows(tables.deliveries, tables.deliveries.c.kind == "revoked")) == count
    assert lists_equal_rows(product)
    listed = [json.loads(row.signed) for row in product.rows(tables.status_lists) if row.signed]
    assert sum(len(set_bits(one["credentialSubject"]["encodedList"])) for one in listed) == count
    signed = signatures(product) - before
    assert 1 <= signed <= 2 * seconds + 2
    with capsys.disabled():
        sys.stdout.write(
            f"\n{product.rt.database.engine.dialect.name}: {writers} writers, {wanted:,} indices, {count:,} "
            f"revocations in {seconds:.1f} s; list signed {signed} times; "
            f"said again {sum(one['again'] for one in done)}; waited {sum(one['waited'] for one in done)}; "
            f"slowest commit {max(one['slowest_ms'] for one in done)} ms\n"
        )


def _race(
    product: Product, ids: list[str], *, writers: int, wanted: int
) -> tuple[list[dict[str, Any]], float]:
    """Start everybody, give the word; return what the writers did, and in how many seconds."""
    publishers = [_process(product, "publish") for _ in range(PUBLISHERS)]
    racers = [_process(product, "write") for _ in range(writers)]
    everybody = [*publishers, *racers]
    try:
        for one in everybody:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n", one.communicate()[1][-2000:]
        began = time.monotonic()
        for place, racer in enumerate(racers):
            mine = ids[place::writers]
            mine += ids[(place + 1) % writers :: writers][::OVERLAP]
            _say(racer, _task(product, mine, wanted // writers))
        done = []
        for racer in racers:
            out, err = racer.communicate(timeout=SECONDS)
            assert racer.returncode == 0, err[-2000:]
            done.append(json.loads(out))
        seconds = time.monotonic() - began
        for publisher in publishers:
            _, err = publisher.communicate(timeout=SECONDS)
            assert publisher.returncode == 0, err[-2000:]
    finally:
        for one in everybody:
            if one.poll() is None:
                one.kill()
            one.communicate()
    return done, seconds


def _process(product: Product, job: str) -> subprocess.Popen[str]:
    tests = str(Path(next(iter(support.__path__))).parent)
    environ = {
        **os.environ,
        "CONFERRAL_DATA_DIR": str(product.settings.data_dir),
        "CONFERRAL_DATABASE_URL": product.settings.database_url,
        "PYTHONPATH": os.pathsep.join((tests, os.environ.get("PYTHONPATH", ""))),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "support.status_writer", job],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip


def _task(product: Product, ids: list[str], allocate: int) -> dict[str, Any]:
    return {
        "organisation_id": product.caller.organisation_id,
        "mode": product.caller.mode,
        "credential": CREDENTIAL,
        "allocate": allocate,
        "revoke": ids,
    }


def _say(racer: subprocess.Popen[str], task: dict[str, Any]) -> None:
    assert racer.stdin is not None
    racer.stdin.write(json.dumps(task))
    racer.stdin.flush()
    racer.stdin.close()
    racer.stdin = None  # `communicate` would write to it
