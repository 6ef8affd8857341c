# SPDX-License-Identifier: Apache-2.0
"""A process that dies inside an effect: what the peer has seen by then, at each point."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conferral.adapters.address_guard import AddressGuard
from conferral.adapters.smtp import SmtpMailer
from conferral.adapters.webhook_client import WebhookClient
from conferral.domain.webhook_event import generate_secret
from conferral.reliable import crash_points
from support import sample_mail
from support.fake_smtp import FakeSmtp
from support.fake_webhook import FakeWebhook

SUPPORT = Path(__file__).parents[1] / "support"


def dies_at(point: str, act: Callable[[], object]) -> None:
    """Act in a child that is killed at the point, and check that it was."""
    child = os.fork()
    if child == 0:
        try:
            crash_points.arm(point)
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("point", "arrived"),
    [("smtp.connected", 0), ("smtp.rcpt", 0), ("smtp.data", 0), ("smtp.dot", 1), ("smtp.accepted", 1)],
)
def test_mail_is_repeated_identically_only_after_a_death_behind_the_dot(point: str, arrived: int) -> None:
    """A death before the dot leaves nothing behind; one after it leaves the very bytes of the repeat."""
    message = sample_mail.message()
    with FakeSmtp() as server:
        mailer = SmtpMailer("127.0.0.1", server.port, tls="none")
        dies_at(point, lambda: mailer.send(message))
        mailer.send(message.at_attempt(2))
        mailer.close()
    assert [each.content for each in server.history.messages] == [message.content] * (arrived + 1)


@pytest.mark.parametrize(
    ("point", "arrived"), [("http.connected", 0), ("http.sent", 1), ("http.answered", 1)]
)
def test_webhook_is_repeated_with_the_same_id_and_body_after_a_death(point: str, arrived: int) -> None:
    """A death after the request was sent leaves a webhook with the id and body of the repeat."""
    guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8")], production=False)
    client, secret = WebhookClient(guard), generate_secret(bytes(32))

    def post() -> None:
        client.post(receiver.url, event_id="evt_1", body=b"{}", secrets=secret, now=dt.datetime.now(dt.UTC))

    with FakeWebhook(secrets=[secret]) as receiver:
        dies_at(point, post)
        post()
    client.close()
    assert [(each.webhook_id, each.body) for each in receiver.history.requests] == [("evt_1", b"{}")] * (
        arrived + 1
    )
    assert all(each.is_signed for each in receiver.history.requests)


@pytest.fixture(params=["fake_smtp.py", "fake_webhook.py"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, int, Path]]:
    """Run each fake peer as a program and return its name, port and history file."""
    history = tmp_path / "history.jsonl"
    command = [sys.executable, str(SUPPORT / request.param), "--history", str(history)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int("".join(each for each in process.stdout.readline().rpartition(":")[2] if each.isdigit()))
        yield request.param, port, history
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_fake_peers_run_as_programs(program: tuple[str, int, Path]) -> None:
    """End-to-end tests start the fakes as programs and read what arrived from a file."""
    name, port, history = program
    if name == "fake_smtp.py":
        mailer = SmtpMailer("127.0.0.1", port, tls="none")
        mailer.send(sample_mail.message())
        mailer.close()
        expected = sample_mail.message().message_id
    else:
        guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8")], production=False)
        client, now = WebhookClient(guard), dt.datetime.now(dt.UTC)
        url = f"http://127.0.0.1:{port}/"
        client.post(url, event_id="evt_1", body=b"{}", secrets=generate_secret(bytes(32)), now=now)
        client.close()
        expected = "evt_1"
    line = json.loads(history.read_text(encoding="utf-8"))
    assert expected in {line.get("message_id"), line.get("webhook_id")}
