# SPDX-License-Identifier: Apache-2.0
"""The verbs of a batch from outside: by API with a key, and on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conferral.store import tables
from support.command import Shell
from support.product import Product, product_on
from support.web import Web, web_of


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """Yield the product on SQLite, its clock beyond what commands write now."""
    with product_on("sqlite", tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as made:
        made.time.move_to(datetime.now(UTC) + timedelta(minutes=1))
        yield made


def asked(web: Web) -> str:
    """Ask for a batch of three; return its id."""
    rows = [
        {"recipient": {"name": name, "email": f"{n}@example.com"}, "fields": {"course": "C"}}
        for n, name in enumerate(("Ada", "=cmd", "Bob"))
    ]
    answer = web.post("/v1/batches", {"template_id": "diploma", "rows": rows}, Idempotency_Key="once")
    assert answer.status_code == 202
    return str(answer.json["batch_id"])


def test_batch_is_steered_and_read_by_api(product: Product) -> None:
    """Each verb answers with counts; who has no key for it, or another's, gets nothing."""
    web = web_of(product)
    batch_id = asked(web)
    here = f"/v1/batches/{batch_id}"
    paused = web.post(f"{here}/pause", {})
    assert (paused.status_code, paused.json["affected"], paused.json["task_id"]) == (202, 3, None)
    assert web.get(here).json["status"] == "paused"
    assert web.post(f"{here}/retry", {}).json["code"] == "state_conflict"
    assert web.post(f"{here}/resume", {}).status_code == 202
    cancelled = web.post(f"{here}/cancel", {})
    assert (cancelled.status_code, cancelled.json["task_id"] is None) == (202, False)
    product.run(patience_seconds=60)
    assert web.get(here).json["status"] == "cancelled"
    assert web.post(f"{here}/retry", {}).json["affected"] == 3
    product.run(patience_seconds=60)
    found = web.get(f"{here}/results")
    assert (found.status_code, found.mimetype) == (200, "text/csv")
    assert "'=cmd" in found.get_data(as_text=True)
    assert found.get_data(as_text=True).count(",issued,") == 3
    assert web.post("/v1/batches/bat_nobodys/cancel", {}).status_code == 404


def test_batch_is_steered_on_the_command_line(product: Product) -> None:
    """The same verbs, for whoever stands before the machine."""
    batch_id = asked(web_of(product))
    shell = Shell(product.settings.data_dir, {})
    for verb in ("pause", "resume", "cancel"):
        done = shell.run("batch", verb, batch_id)
        assert (done.code, batch_id in done.out) == (0, True), done.err
    product.run(patience_seconds=60)
    assert product.rows(tables.credentials) == []
    assert shell.run("batch", "retry", batch_id, "--json").code == 0
    product.run(patience_seconds=60)
    told = shell.run("batch", "results", batch_id)
    assert (told.code, told.out.count(",issued,")) == (0, 3)
    assert shell.run("batch", "pause", "bat_nobodys").code != 0


def test_batch_is_steered_by_buttons(product: Product) -> None:
    """A page offers what makes sense now, and only to who may change something."""
    web = web_of(product)
    here = f"/console/batches/{asked(web)}"
    owner = web.signed_in()
    verbs = ("pause", "resume", "cancel", "retry")
    then = {"pause": ["resume", "cancel"], "resume": ["pause", "cancel"], "cancel": ["retry"]}
    for verb, offered in then.items():
        assert owner.submit(f"{here}/steer/{verb}", {}).status_code == 302
        page = owner.page(here)
        assert [one for one in verbs if f"/steer/{one}" in page] == offered
    assert "/steer/" not in web.signed_in("viewer").page(here)
