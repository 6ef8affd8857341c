# SPDX-License-Identifier: Apache-2.0
"""The SMTP transport against a server that fails at every stage, on real sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from conferral.adapters import smtp_session
from conferral.adapters.mailer import ChannelPaused
from conferral.adapters.smtp import SmtpDeadlines, SmtpMailer
from conferral.reliable.errors import Ambiguous, LeaseLost, Permanent, Retryable, RunError
from support import sample_mail
from support.fake_smtp import FakeSmtp, Fault, drip, drop, hang, reply

QUICK = SmtpDeadlines(command_seconds=0.3, dot_seconds=0.4, total_seconds=0.8)


def mailer_for(server: FakeSmtp, **options: object) -> SmtpMailer:
    """Return a mailer without TLS for a fake server."""
    return SmtpMailer("127.0.0.1", server.port, **{"tls": "none", **options})  # type: ignore[arg-type]


def error_at(stage: str, fault: Fault, limits: SmtpDeadlines = QUICK) -> tuple[RunError, FakeSmtp]:
    """Send one message to a server with one fault and return what was raised."""
    with FakeSmtp(faults={stage: [fault]}) as server:
        mailer = mailer_for(server, limits=limits)
        with pytest.raises(RunError) as caught:
            mailer.send(sample_mail.large_message() if stage == "body" else sample_mail.message())
        mailer.close()
    return caught.value, server


@pytest.mark.parametrize(
    ("stage", "fault", "kind", "code"),
    [
        ("connect", reply("554 5.3.2 no service"), Retryable, "smtp_unreachable"),
        ("connect", drop(), Retryable, "smtp_unreachable"),
        ("ehlo", reply("501 5.5.4 who"), Retryable, "smtp_unreachable"),
        ("ehlo", drop(), Retryable, "smtp_unreachable"),
        *[(stage, drop(), Retryable, "smtp_unreachable") for stage in ("mail", "rcpt", "data", "body")],
        *[
            (stage, reply("421 4.7.0 too many connections"), Retryable, "smtp_throttled")
            for stage in ("connect", "ehlo", "mail", "rcpt", "data", "dot")
        ],
        *[
            (stage, reply("451 4.3.0 try later"), Retryable, "smtp_temporary")
            for stage in ("mail", "rcpt", "data", "dot")
        ],
        ("rcpt", reply("550 5.1.1 unknown"), Permanent, "mailbox_unknown"),
        ("rcpt", reply("550 5.7.1 policy"), Permanent, "mail_refused"),
        ("data", reply("554 5.5.1 no"), Permanent, "mail_refused"),
        ("dot", reply("554 5.7.1 spam"), Permanent, "mail_refused"),
        ("mail", reply("552 5.3.4 too large"), Permanent, "mail_refused"),
        ("mail", reply("550 5.7.1 not your sender"), ChannelPaused, "smtp_sender_refused"),
        ("mail", reply("530 5.7.0 log in first"), ChannelPaused, "smtp_auth_failed"),
        ("data", reply("250 2.0.0 what"), Retryable, "smtp_unreachable"),
        ("dot", drop(), Ambiguous, "email_outcome_unknown"),
        ("dot", drop("250-2.0.0 half of\r\n"), Ambiguous, "email_outcome_unknown"),
        ("dot", drop("250 2.0.0 half of a line"), Ambiguous, "email_outcome_unknown"),
        ("dot", reply("nonsense"), Ambiguous, "email_outcome_unknown"),
        ("dot", drop("2" * 20_000), Ambiguous, "email_outcome_unknown"),
    ],
)
def test_outcome_follows_from_stage_and_reply(
    stage: str, fault: Fault, kind: type[RunError], code: str
) -> None:
    """Each row of the table, as it comes over a socket."""
    error, server = error_at(stage, fault)
    assert (type(error), error.code) == (kind, code)
    assert error.evidence["stage"] == stage
    assert len(server.history.messages) == (1 if stage == "dot" else 0)


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt", "data", "body", "dot"])
@pytest.mark.parametrize("fault", [hang(), drip()], ids=["hang", "drip"])
def test_silent_or_dripping_server_is_given_up_in_time(stage: str, fault: Fault) -> None:
    """No stage outlasts its deadline, also if bytes keep dripping; only after the dot it is ambiguous."""
    started = time.monotonic()
    error, _ = error_at(stage, fault)
    assert time.monotonic() - started < 1.8
    expected = (Ambiguous, "email_outcome_unknown") if stage == "dot" else (Retryable, "smtp_unreachable")
    assert (type(error), error.code) == expected


@pytest.mark.parametrize(
    ("stage", "planned"), [("noop", [drip()]), ("rcpt", [None, drip()]), ("dot", [None, drip()])]
)
def test_deadline_also_holds_on_a_connection_that_is_used_again(
    stage: str, planned: list[Fault | None]
) -> None:
    """A kept connection is watched anew by each message."""
    with FakeSmtp(faults={stage: planned}) as server:
        mailer = mailer_for(server, limits=QUICK)
        mailer.send(sample_mail.message(number=1))
        started = time.monotonic()
        with pytest.raises(Ambiguous if stage == "dot" else Retryable):
            mailer.send(sample_mail.message(number=2))
        mailer.close()
    assert time.monotonic() - started < 1.8


def test_refused_and_unknown_servers_are_unreachable() -> None:
    """Nobody listening, and no such host, are certainly not sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for host in ("127.0.0.1", "mail.invalid"):
        with pytest.raises(Retryable) as caught:
            SmtpMailer(host, port, tls="none", limits=QUICK).send(sample_mail.message())
        assert (caught.value.code, caught.value.evidence["stage"]) == ("smtp_unreachable", "connect")


def test_dot_is_not_sent_when_too_little_time_is_left_for_its_reply() -> None:
    """Rather certainly not sent than ambiguous: a slow server leaves no time to hear the answer."""
    slow = reply("250 2.1.0 ok", delay_seconds=0.5)
    limits = SmtpDeadlines(command_seconds=0.9, dot_seconds=0.9, total_seconds=1.2)
    error, server = error_at("mail", slow, limits)
    assert (error.code, error.evidence["stage"]) == ("smtp_unreachable", "body")
    assert server.history.messages == []


def test_message_arrives_byte_for_byte_also_with_leading_dots() -> None:
    """Dot-stuffing is undone by the server; nothing else changes."""
    content = b"Message-ID: <a@b.example>\r\n\r\n.\r\n..\r\n.a\r\na.\r\n"
    message = sample_mail.message()
    object.__setattr__(message, "content", content)
    with FakeSmtp() as server:
        mailer = mailer_for(server)
        mailer.send(message)
        mailer.close()
    assert server.history.messages[0].content == content


def test_one_connection_carries_many_messages() -> None:
    """A thread keeps its connection, asks NOOP before using it again, and says QUIT at the end."""
    with FakeSmtp() as server:
        mailer = mailer_for(server)
        for number in range(5):
            mailer.send(sample_mail.message(number=number))
        mailer.close()
    verbs = server.history.verbs()
    assert server.history.connections == 1
    assert (verbs.count("EHLO"), verbs.count("NOOP"), verbs.count("QUIT")) == (1, 4, 1)


def test_connection_is_replaced_after_its_share_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Relays dislike endless connections: after the limit a new one is opened."""
    monkeypatch.setattr(smtp_session, "MESSAGES_PER_CONNECTION", 3)
    with FakeSmtp() as server:
        mailer = mailer_for(server)
        for number in range(7):
            mailer.send(sample_mail.message(number=number))
        mailer.close()
    assert server.history.connections == 3
    assert [message.connection for message in server.history.messages] == [1, 1, 1, 2, 2, 2, 3]


def test_connection_is_replaced_when_it_idled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection nobody used for a while is not trusted."""
    monkeypatch.setattr(smtp_session, "IDLE_SECONDS", -1.0)
    with FakeSmtp() as server:
        mailer = mailer_for(server)
        for number in range(2):
            mailer.send(sample_mail.message(number=number))
        mailer.close()
    assert server.history.connections == 2


@pytest.mark.parametrize("fault", [reply("421 4.4.2 idle too long"), drop(), reply("500 5.5.1 what"), hang()])
def test_message_goes_over_a_new_connection_when_the_kept_one_is_stale(fault: Fault) -> None:
    """A connection that died between two messages costs no attempt."""
    with FakeSmtp(faults={"noop": [fault]}) as server:
        mailer = mailer_for(server, limits=SmtpDeadlines(command_seconds=0.5))
        mailer.send(sample_mail.message(number=1))
        mailer.send(sample_mail.message(number=2))
        mailer.close()
    assert server.history.connections == 2
    assert len(server.history.accepted()) == 2


def test_refused_recipient_leaves_the_connection_usable() -> None:
    """After a refusal the connection is cleared with RSET and carries the next message."""
    with FakeSmtp(
        faults={"rcpt": [reply("550 5.1.1 no"), None], "dot": [reply("451 4.3.0 later")]}
    ) as server:
        mailer = mailer_for(server)
        with pytest.raises(Permanent):
            mailer.send(sample_mail.message(number=1))
        with pytest.raises(Retryable):
            mailer.send(sample_mail.message(number=2))
        mailer.send(sample_mail.message(number=3))
        mailer.close()
    assert server.history.connections == 1
    assert server.history.verbs().count("RSET") == 2
    assert [message.message_id for message in server.history.accepted()] == [
        sample_mail.message(number=3).message_id
    ]


def test_aborted_message_never_arrives() -> None:
    """When the caller loses its lease before the dot, the connection is dropped inside the message."""

    def lose() -> None:
        raise LeaseLost

    with FakeSmtp() as server:
        mailer = mailer_for(server)
        with pytest.raises(LeaseLost):
            mailer.send(sample_mail.message(), before_dot=lose)
        mailer.send(sample_mail.message(number=2))
        mailer.close()
    assert server.history.connections == 2
    assert len(server.history.messages) == 1
    assert server.history.verbs().count("QUIT") == 1


def test_repeats_after_a_lost_answer_are_identical() -> None:
    """A repeat after an unknown outcome has the same Message-ID, Date and bytes."""
    with FakeSmtp(faults={"dot": [drop(), None]}) as server:
        mailer = mailer_for(server)
        with pytest.raises(Ambiguous):
            mailer.send(sample_mail.message())
        receipt = mailer.send(sample_mail.message(attempt=2))
        mailer.close()
    first, second = server.history.messages
    assert first.content == second.content
    assert receipt.message_sha256 == sample_mail.message().sha256


def test_threads_do_not_share_a_connection() -> None:
    """Each thread talks over its own connection; the messages never mix."""
    with FakeSmtp() as server:
        mailer = mailer_for(server)

        def send_some(first: int) -> None:
            for number in range(first, first + 5):
                mailer.send(sample_mail.message(number=number))

        threads = [threading.Thread(target=send_some, args=(at * 5,)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mailer.close()
    assert 1 <= server.history.connections <= 4
    assert {message.content for message in server.history.messages} == {
        sample_mail.message(number=number).content for number in range(20)
    }


def test_forked_child_opens_a_connection_of_its_own() -> None:
    """A child never speaks on the parent's connection, and leaves it intact."""
    with FakeSmtp() as server:
        mailer = mailer_for(server)
        mailer.send(sample_mail.message(number=1))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                mailer.send(sample_mail.message(number=2))
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        mailer.send(sample_mail.message(number=3))
        mailer.close()
    assert [message.connection for message in server.history.messages] == [1, 2, 1]


def test_envelope_and_header_carry_the_delivery_when_configured() -> None:
    """VERP names the delivery in the return path; a provider's header makes repeats harmless."""
    with FakeSmtp() as server:
        mailer = mailer_for(
            server, bounce="bounce@mail.school.example", idempotency_header="Resend-Idempotency-Key"
        )
        message = sample_mail.message()
        mailer.send(message)
        mailer.close()
    received = server.history.messages[0]
    assert received.envelope_from == f"bounce+{message.delivery_id}@mail.school.example"
    assert received.content == b"Resend-Idempotency-Key: dlv_0001\r\n" + message.content


def test_address_beyond_ascii_needs_smtputf8() -> None:
    """With SMTPUTF8 the message goes; without, the run ends and the connection stays usable."""
    foreign = sample_mail.message("用户@例子.example")
    with FakeSmtp() as server:
        mailer = mailer_for(server)
        mailer.send(foreign)
        mailer.close()
    assert server.history.messages[0].envelope_to == ("用户@xn--fsqu00a.example",)
    assert "SMTPUTF8" in next(line for line in server.history.commands if line.startswith("MAIL"))
    with FakeSmtp(extensions=["SIZE"]) as server:
        mailer = mailer_for(server)
        with pytest.raises(Permanent) as caught:
            mailer.send(foreign)
        mailer.send(sample_mail.message())
        mailer.close()
    assert caught.value.code == "email_needs_smtputf8"
    assert server.history.connections == 1


@pytest.fixture
def quiet_server() -> Iterator[FakeSmtp]:
    """Return a server without faults."""
    with FakeSmtp() as server:
        yield server


def test_ehlo_names_us_without_asking_the_dns(
    quiet_server: FakeSmtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DNS knows no deadline, so our own name is never looked up."""
    monkeypatch.setattr(socket, "gethostname", lambda: "worker")
    mailer = mailer_for(quiet_server)
    mailer.send(sample_mail.message())
    mailer.close()
    assert quiet_server.history.commands[0].lower() == "ehlo [127.0.0.1]"
