# SPDX-License-Identifier: Apache-2.0
"""What every mail transport promises, run on both: the one that sends and the one that keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from conferral.adapters.captured_mail import CapturedMessage, CaptureMailer
from conferral.adapters.mailer import Mailer
from conferral.adapters.smtp import SmtpMailer
from conferral.reliable.errors import LeaseLost, Permanent, Retryable
from support import sample_mail
from support.fake_smtp import FakeSmtp, reply


@dataclass
class Transport:
    """A mailer and the messages that arrived through it."""

    mailer: Mailer
    arrived: Callable[[], list[bytes]]


@pytest.fixture(params=["smtp", "capture"])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """Return each implementation in turn, with somebody at its other end."""
    if request.param == "capture":
        kept: list[CapturedMessage] = []
        yield Transport(CaptureMailer(kept.append), lambda: [message.content for message in kept])
        return
    unknown = reply("550 5.1.1 <bounce+x@test.invalid>: no such user bounce+x")
    with FakeSmtp(recipients={"bounce+x@test.invalid": unknown}) as server:
        mailer = SmtpMailer("127.0.0.1", server.port, tls="none")
        yield Transport(mailer, lambda: [message.content for message in server.history.messages])
        mailer.close()


def test_receipt_is_given_when_the_message_arrived(transport: Transport) -> None:
    """A receipt says what decided, names the bytes and holds no address."""
    message = sample_mail.message()
    receipt = transport.mailer.send(message)
    assert transport.arrived() == [message.content]
    assert receipt.evidence() == {
        "stage": receipt.stage,
        "code": 250,
        "enhanced_code": "2.0.0",
        "text": receipt.text,
        "message_sha256": message.sha256,
    }
    assert "@" not in str(receipt)


def test_before_dot_is_called_once_and_before_anything_arrived(transport: Transport) -> None:
    """The caller checks its lease at the last moment at which not sending is still certain."""
    seen: list[int] = []
    transport.mailer.send(sample_mail.message(), before_dot=lambda: seen.append(len(transport.arrived())))
    assert seen == [0]
    assert len(transport.arrived()) == 1


def test_nothing_arrives_when_before_dot_raises(transport: Transport) -> None:
    """An exception of the caller aborts as certainly not sent, and the next message is not harmed."""

    def lose() -> None:
        raise LeaseLost

    with pytest.raises(LeaseLost):
        transport.mailer.send(sample_mail.message(number=1), before_dot=lose)
    following = sample_mail.message(number=2)
    transport.mailer.send(following)
    assert transport.arrived() == [following.content]


def test_unknown_mailbox_is_permanent_and_unnamed(transport: Transport) -> None:
    """A refused recipient ends the run with evidence that names nobody; others still get theirs."""
    with pytest.raises(Permanent) as caught:
        transport.mailer.send(sample_mail.message("bounce+x@test.invalid"))
    assert caught.value.code == "mailbox_unknown"
    assert {**caught.value.evidence, "text": ""} == {
        "stage": "rcpt",
        "code": 550,
        "enhanced_code": "5.1.1",
        "text": "",
        "message_sha256": sample_mail.message("bounce+x@test.invalid").sha256,
    }
    assert "bounce" not in f"{caught.value.detail} {caught.value.evidence}"
    transport.mailer.send(sample_mail.message())
    assert len(transport.arrived()) == 1


def test_attempts_carry_identical_bytes(transport: Transport) -> None:
    """A repeat is the same message: same Message-ID, Date and every other byte."""
    for attempt in (1, 2, 3):
        transport.mailer.send(sample_mail.message(attempt=attempt))
    assert len(set(transport.arrived())) == 1
    assert len(transport.arrived()) == 3


def test_closing_twice_is_harmless_and_sending_afterwards_works(transport: Transport) -> None:
    """`close` gives up what is kept open; it does not end the mailer."""
    transport.mailer.send(sample_mail.message(number=1))
    transport.mailer.close()
    transport.mailer.close()
    transport.mailer.send(sample_mail.message(number=2))
    assert len(transport.arrived()) == 2


@pytest.mark.parametrize("address", ["smtp-timeout@test.invalid", "SMTP-Timeout+demo@test.invalid"])
def test_magic_timeout_arrives_at_the_third_attempt(address: str) -> None:
    """The test mailbox times out twice for `smtp-timeout@` and then keeps the message, once."""
    kept: list[CapturedMessage] = []
    mailer = CaptureMailer(kept.append)
    for attempt in (1, 2):
        with pytest.raises(Retryable) as caught:
            mailer.send(sample_mail.message(address, attempt=attempt))
        assert caught.value.code == "smtp_unreachable"
        assert kept == []
    mailer.send(sample_mail.message(address, attempt=3))
    assert [message.attempt for message in kept] == [3]


@pytest.mark.parametrize(
    "address", ["bounce@elsewhere.example", "bouncer@test.invalid", "crash-after-email@test.invalid"]
)
def test_other_addresses_are_simply_kept(address: str) -> None:
    """Only the two magic addresses that concern mail are obeyed here."""
    kept: list[CapturedMessage] = []
    CaptureMailer(kept.append).send(sample_mail.message(address))
    assert [message.envelope_to for message in kept] == [address]


def test_message_was_not_sent_when_keeping_it_failed() -> None:
    """An error of the store goes to the caller as it is."""

    def fail(_message: CapturedMessage) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - any error of the store
        CaptureMailer(fail).send(sample_mail.message())
