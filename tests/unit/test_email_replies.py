# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from conferral.adapters.mailer import ChannelPaused, masked
from conferral.adapters.smtp_replies import failure, receipt_of
from conferral.reliable.errors import Ambiguous, Permanent, Retryable, RunError

SETTING_UP = ("connect", "ehlo", "starttls")
BEFORE_THE_DOT = (*SETTING_UP, "auth", "mail", "rcpt", "data", "body")
IN_TRANSACTION = ("mail", "rcpt", "data", "dot")


def meaning(stage: str, code: int, text: str = "") -> RunError:
    """Return what a reply at a stage means."""
    receipt = receipt_of(stage, code, text.encode(), sha256="0" * 64, known=("zoe.mueller@students.example",))
    return failure(receipt)


ROWS: list[tuple[str, int, str, type[RunError], str]] = [
    *[(stage, 0, "", Retryable, "smtp_unreachable") for stage in BEFORE_THE_DOT],
    *[(stage, -1, "", Retryable, "smtp_unreachable") for stage in BEFORE_THE_DOT],
    *[(stage, 250, "", Retryable, "smtp_unreachable") for stage in BEFORE_THE_DOT],
    *[
        (stage, code, "", Retryable, "smtp_unreachable")
        for stage in SETTING_UP
        for code in (450, 454, 501, 554)
    ],
    *[(stage, 421, "4.7.0 later", Retryable, "smtp_throttled") for stage in (*BEFORE_THE_DOT, "dot")],
    *[
        (stage, code, "4.2.0", Retryable, "smtp_temporary")
        for stage in ("auth", *IN_TRANSACTION)
        for code in (450, 452)
    ],
    ("auth", 454, "4.7.0 temporary authentication failure", Retryable, "smtp_temporary"),
    ("rcpt", 550, "5.1.1 unknown", Permanent, "mailbox_unknown"),
    ("rcpt", 553, "5.1.3 bad syntax", Permanent, "mailbox_unknown"),
    ("rcpt", 550, "5.1.10 null MX", Permanent, "mailbox_unknown"),
    ("rcpt", 550, "5.7.1 rejected by policy", Permanent, "mail_refused"),
    ("rcpt", 552, "5.2.2 over quota", Permanent, "mail_refused"),
    ("rcpt", 550, "no enhanced code", Permanent, "mail_refused"),
    ("rcpt", 550, "5.1.8 sender domain not found", ChannelPaused, "smtp_sender_refused"),
    ("rcpt", 530, "5.7.0 authentication required", ChannelPaused, "smtp_auth_failed"),
    ("data", 554, "5.5.1 no valid recipients", Permanent, "mail_refused"),
    ("dot", 554, "5.7.1 spam", Permanent, "mail_refused"),
    ("dot", 552, "5.3.4 too large", Permanent, "mail_refused"),
    ("mail", 552, "5.3.4 too large", Permanent, "mail_refused"),
    ("auth", 535, "5.7.8", ChannelPaused, "smtp_auth_failed"),
    ("auth", 530, "5.7.0", ChannelPaused, "smtp_auth_failed"),
    ("auth", 504, "5.5.4 unknown mechanism", ChannelPaused, "smtp_auth_failed"),
    ("mail", 530, "5.7.0 authentication required", ChannelPaused, "smtp_auth_failed"),
    ("mail", 550, "5.7.1 not your sender", ChannelPaused, "smtp_sender_refused"),
    ("mail", 553, "5.1.8", ChannelPaused, "smtp_sender_refused"),
    *[("dot", code, "", Ambiguous, "email_outcome_unknown") for code in (0, -1, 25, 354, 999)],
]


@pytest.mark.parametrize(("stage", "code", "text", "kind", "name"), ROWS)
def test_reply_means_what_the_table_says(
    stage: str, code: int, text: str, kind: type[RunError], name: str
) -> None:
    """Stage and reply decide about the run: one row of the table each."""
    error = meaning(stage, code, text)
    assert (type(error), error.code) == (kind, name)
    assert error.evidence["stage"] == stage
    assert error.evidence["message_sha256"] == "0" * 64


def test_temporary_refusal_waits_at_least_a_minute() -> None:
    """Greylisting servers refuse whoever comes back within a minute; other classes keep their schedule."""
    assert meaning("rcpt", 450).retry_after_seconds == 60
    assert meaning("rcpt", 421).retry_after_seconds is None
    assert isinstance(meaning("auth", 535), ChannelPaused)
    paused = meaning("auth", 535)
    assert isinstance(paused, ChannelPaused)
    assert paused.seconds == 900


@pytest.mark.parametrize(
    "reply",
    [
        "5.1.1 <zoe.mueller@students.example>: Recipient address rejected: User unknown",
        "5.1.1 User ZOE.MUELLER unknown",
        "5.1.1 zoe.mueller%40students.example see https://help.example/?who=zoe.mueller%40students.example",
        "5.1.1 bounces+zoe.mueller=students.example@relay.example",
        "5.1.1 'zoe.mueller@students.example' (\"zoe.mueller@students.example\")",
        "5.1.1 mailbox:zoe.mueller",
        "5.1.1 forwarded to mueller.zoe@home.example, who is unknown",
        "5.1.1\nzoe.mueller@students.example\nzoe.mueller",
    ],
)
def test_reply_holds_no_address_when_it_is_stored(reply: str) -> None:
    """Servers echo the recipient; neither the evidence nor the detail does."""
    error = meaning("rcpt", 550, reply)
    stored = f"{error.detail} {error.evidence}".lower()
    assert "zoe" not in stored
    assert "mueller" not in stored
    assert error.evidence["enhanced_code"] == "5.1.1"
    assert "<address>" in error.evidence["text"]


def test_reply_is_shortened_and_on_one_line() -> None:
    """A server cannot fill the database or break a log line."""
    text = masked("a\r\n\x00\x1b[31m" + "b" * 5_000)
    assert len(text) == 300
    assert text.isprintable()
