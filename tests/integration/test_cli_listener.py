# SPDX-License-Identifier: Apache-2.0
"""`conferral webhooks listen`: real deliveries and forged ones at a real socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from conferral.domain import webhook_event
from conferral.store.tables import endpoints
from support.fake_webhook import FakeWebhook
from support.product import Product, product_on

READY_SECONDS = 60.0
BODY = b'{"type": "ping", "timestamp": "2026-01-01T00:00:00Z", "data": {}}'


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """Yield the product on SQLite, its clock at the present."""
    with product_on("sqlite", tmp_path) as made:
        made.time.move_to(datetime.now(UTC) + timedelta(seconds=30))
        yield made


@contextmanager
def listening(product: Product, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Yield a listener and what it said when it was ready."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "conferral.cli.main", "webhooks", "listen", "--json", *words],
        env={**os.environ, "CONFERRAL_DATA_DIR": str(product.settings.data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "listening"
        yield process, cast("dict[str, Any]", ready)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def post(url: str, headers: dict[str, str], body: bytes = BODY) -> int:
    """Post and return the status."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    connection.request("POST", parts.path, body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def signed(secret: str, event_id: str = "evt_1", body: bytes = BODY) -> dict[str, str]:
    """Return the headers of a delivery."""
    now = int(time.time())
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": webhook_event.sign(secret, event_id, now, body),
    }


def rest(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return everything it still said."""
    out, _ = process.communicate(timeout=READY_SECONDS)
    return [json.loads(line) for line in out.splitlines()]


def states(product: Product) -> list[str]:
    """Return the states of all endpoints."""
    return [row.state for row in product.rows(endpoints)]


def test_real_events_are_verified_and_the_endpoint_removes_itself(product: Product) -> None:
    """Three credentials, three verified events, then it ends by itself."""
    with listening(product, "--count", "3", "--timeout", "60") as (process, ready):
        assert states(product) == ["enabled"]
        for number in range(3):
            product.request(email=f"ada{number}@example.com")
        product.run()
        arrived = rest(process)
    assert process.returncode == 0
    assert [one["body"]["type"] for one in arrived] == ["credential.issued"] * 3
    assert all(one["verified"] for one in arrived)
    assert states(product) == ["disabled"]
    assert ready["secret"].startswith("whsec_")


def test_a_forged_event_is_refused_and_makes_the_command_fail(product: Product) -> None:
    """Wrong secret, wrong body, no signature, wrong path: none is believed."""
    with listening(product, "--count", "1", "--timeout", "60") as (process, ready):
        other = webhook_event.generate_secret(bytes(32))
        assert post(ready["url"], signed(other)) == 401
        assert post(ready["url"], signed(ready["secret"]), BODY + b" ") == 401
        assert post(ready["url"], {}) == 401
        assert post(ready["url"] + "x", signed(ready["secret"])) == 404
        assert post(ready["url"], signed(ready["secret"])) == 204
        arrived = rest(process)
    assert process.returncode == 1
    assert [one["verified"] for one in arrived] == [False, False, False, True]


def test_events_are_handed_on_with_the_answer_of_the_other_program(product: Product) -> None:
    """The sender learns what the developer's own program says."""
    with (
        FakeWebhook() as mine,
        listening(product, "--forward-to", mine.url, "--count", "1") as (
            process,
            ready,
        ),
    ):
        assert post(ready["url"], signed(ready["secret"])) == 200
        arrived = rest(process)
        assert [one.body for one in mine.history.requests] == [BODY]
    assert arrived[0]["answered"] == 200


def test_a_repeated_event_is_shown_as_such_and_counted_once(product: Product) -> None:
    """At least once is the promise; the id tells."""
    with listening(product, "--count", "2", "--timeout", "60") as (process, ready):
        for event_id in ("evt_1", "evt_1", "evt_2"):
            assert post(ready["url"], signed(ready["secret"], event_id)) == 204
        arrived = rest(process)
    assert [one["repeated"] for one in arrived] == [False, True, False]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_removes_itself_when_it_is_told_to_end(product: Product, number: int) -> None:
    """Ctrl-C is the usual end and no failure."""
    with listening(product) as (process, _):
        process.send_signal(number)
        process.wait(READY_SECONDS)
    assert process.returncode == 0
    assert states(product) == ["disabled"]


def test_it_ends_with_seven_when_too_few_came(product: Product) -> None:
    """A script that waits for an event learns that none came."""
    with listening(product, "--count", "1", "--timeout", "0.5") as (process, _):
        process.wait(READY_SECONDS)
    assert process.returncode == 7


def test_a_killed_listener_is_cleared_away_by_the_next_on_its_port(product: Product) -> None:
    """A killed one could not remove itself."""
    with listening(product) as (process, ready):
        process.kill()
        process.wait(READY_SECONDS)
    assert states(product) == ["enabled"]
    port = str(urlsplit(ready["url"]).port)
    with listening(product, "--port", port, "--timeout", "0.5") as (process, _):
        assert sorted(states(product)) == ["disabled", "enabled"]
        process.wait(READY_SECONDS)
    assert states(product) == ["disabled", "disabled"]
