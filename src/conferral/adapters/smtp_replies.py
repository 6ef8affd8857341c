# SPDX-License-Identifier: Apache-2.0
"""What an SMTP reply at a given stage means for the run: the table of outcomes as code.

    outcome                                      class            code
    ───────────────────────────────────────────  ───────────────  ───────────────────────────
    connect, EHLO, STARTTLS fail; lost before    Retryable        smtp_unreachable
      the dot
    421 at any stage                             Retryable        smtp_throttled
    4xx, also after the dot                      Retryable        smtp_temporary, 60 s at least
    5xx at RCPT                                  Permanent        mailbox_unknown (5.1.x), mail_refused
    5xx at DATA, after the dot; 552 at MAIL      Permanent        mail_refused
    5xx at AUTH, 530 and 535 anywhere            ChannelPaused    smtp_auth_failed
    5xx at MAIL; 5.1.7 and 5.1.8 at RCPT         ChannelPaused    smtp_sender_refused
    lost or unreadable after the dot             Ambiguous        email_outcome_unknown

Pure: a receipt goes in, an error comes out. Nothing here talks to a server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from conferral.adapters.mailer import ChannelPaused, Receipt, masked
from conferral.reliable.errors import Ambiguous, Permanent, Retryable, RunError

NO_REPLY: Final = 0
"""Stands for a reply that never came or that is not SMTP."""
GREYLIST_SECONDS: Final = 60.0
"""Greylisting servers refuse a first attempt, and commonly any other within a minute."""
PAUSE_SECONDS: Final = 900.0
"""How often a channel that refuses us altogether is tried; a person can resume it earlier."""

_CLOSING: Final = 421
_TOO_LARGE: Final = 552
_AUTHENTICATION: Final = frozenset({530, 535})
_TEMPORARY: Final = range(400, 500)
_REFUSED: Final = range(500, 600)
_REPLY_CODES: Final = range(200, 600)
_SETTING_UP: Final = frozenset({"connect", "ehlo", "starttls"})
# Servers that judge the sender only when they know the recipient (Postfix does) answer so at RCPT:
# RFC 3463 5.1.7 bad sender's mailbox address syntax, 5.1.8 bad sender's system address.
_ABOUT_THE_SENDER: Final = frozenset({"5.1.7", "5.1.8"})
_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s|$)")
_PLACES: Final = {
    "connect": "when we connected",
    "ehlo": "to EHLO",
    "starttls": "to STARTTLS",
    "auth": "to AUTH",
    "mail": "to the sender",
    "rcpt": "to the recipient",
    "data": "to DATA",
    "body": "while the message was sent",
    "dot": "to the complete message",
}


def receipt_of(stage: str, code: int, reply: bytes, *, sha256: str, known: tuple[str, ...]) -> Receipt:
    """Return the reply at a stage, masked; `known` are texts that identify a person."""
    text = reply.decode("utf-8", errors="replace")
    enhanced = _ENHANCED.match(text)
    return Receipt(
        stage=stage,
        code=code if code in _REPLY_CODES else NO_REPLY,
        enhanced_code=enhanced[1] if enhanced else "",
        text=masked(text, *known),
        message_sha256=sha256,
    )


def failure(receipt: Receipt) -> RunError:
    """Return the error that a refusing, missing or unexpected reply means."""
    rule = next(rule for rule in _RULES if rule.applies(receipt))
    detail, evidence = _said(receipt, rule.advice), receipt.evidence()
    if rule.error is ChannelPaused:
        return ChannelPaused(rule.code, detail, seconds=PAUSE_SECONDS, evidence=evidence)
    if rule.error is Ambiguous:
        return Ambiguous(rule.code, detail, evidence=evidence)
    if rule.error is Permanent:
        return Permanent(rule.code, detail, evidence=evidence)
    floor = GREYLIST_SECONDS if rule.code == "smtp_temporary" else None
    return Retryable(rule.code, detail, retry_after_seconds=floor, evidence=evidence)


@dataclass(frozen=True)
class _Rule:
    applies: Callable[[Receipt], bool]
    error: type[RunError]
    code: str
    advice: str


def _is_answered(receipt: Receipt) -> bool:
    return receipt.code in _TEMPORARY or receipt.code in _REFUSED


def _is_about_login(receipt: Receipt) -> bool:
    return receipt.code in _AUTHENTICATION or (receipt.stage == "auth" and receipt.code in _REFUSED)


def _is_about_sender(receipt: Receipt) -> bool:
    if receipt.stage == "rcpt":
        return receipt.enhanced_code in _ABOUT_THE_SENDER
    return receipt.stage == "mail" and receipt.code != _TOO_LARGE


# The first that applies decides.
_RULES: Final = (
    _Rule(
        lambda receipt: receipt.stage == "dot" and not _is_answered(receipt),
        Ambiguous,
        "email_outcome_unknown",
        "It got the whole message, but its answer was lost: it may have accepted it.",
    ),
    _Rule(lambda receipt: receipt.code == _CLOSING, Retryable, "smtp_throttled", "It asks us to slow down."),
    _Rule(
        lambda receipt: receipt.stage in _SETTING_UP or not _is_answered(receipt),
        Retryable,
        "smtp_unreachable",
        "Nothing was sent.",
    ),
    _Rule(
        lambda receipt: receipt.code in _TEMPORARY,
        Retryable,
        "smtp_temporary",
        "Nothing was sent; try again.",
    ),
    _Rule(
        _is_about_login,
        ChannelPaused,
        "smtp_auth_failed",
        "Check CONFERRAL_SMTP_USERNAME and CONFERRAL_SMTP_PASSWORD_FILE.",
    ),
    _Rule(
        _is_about_sender,
        ChannelPaused,
        "smtp_sender_refused",
        "Check CONFERRAL_MAIL_FROM and what the server allows it to send.",
    ),
    _Rule(
        lambda receipt: receipt.stage == "rcpt" and receipt.enhanced_code.startswith("5.1."),
        Permanent,
        "mailbox_unknown",
        "There is no such mailbox: correct the address.",
    ),
    _Rule(lambda _receipt: True, Permanent, "mail_refused", "It will not take this message."),
)


def _said(receipt: Receipt, advice: str) -> str:
    place = _PLACES.get(receipt.stage, receipt.stage)
    if receipt.code == NO_REPLY:
        return f"The mail server gave no usable answer {place}. {advice}"
    numbers = f"{receipt.code} {receipt.enhanced_code}".strip()
    return f"The mail server answered {numbers} {place}. {advice}"
