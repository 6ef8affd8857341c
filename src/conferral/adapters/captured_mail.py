# SPDX-License-Identifier: Apache-2.0
"""The mail transport of test mode: it keeps every message and sends none.

It obeys the magic addresses at `test.invalid` that concern mail, so that an integrator sees
each failure happen. Where a message is kept is decided by whoever hands in `save`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from conferral.adapters.mailer import MASK, Receipt, nothing
from conferral.domain.email_message import EmailMessageBytes
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent, Retryable

MAGIC_DOMAIN: Final = "test.invalid"
TIMEOUTS: Final = 2
"""How many attempts `smtp-timeout@` fails before the message arrives."""


@dataclass(frozen=True)
class CapturedMessage:
    """One message of the test mailbox."""

    delivery_id: str
    message_id: str
    attempt: int
    envelope_from: str
    envelope_to: str
    content: bytes
    sha256: str


class CaptureMailer:
    """Keep each message by calling `save`; a message that `save` raised for was not sent."""

    def __init__(self, save: Callable[[CapturedMessage], None]) -> None:
        self._save = save

    def send(self, message: EmailMessageBytes, *, before_dot: Callable[[], None] = nothing) -> Receipt:
        """Keep one message, or fail as its magic address asks.

        Raises:
            Permanent: `mailbox_unknown` for `bounce@test.invalid`.
            Retryable: `smtp_unreachable` for the first two attempts to `smtp-timeout@test.invalid`.
        """
        magic = _magic_name(message.envelope_to)
        if magic == "smtp-timeout" and message.attempt <= TIMEOUTS:
            raise _timed_out(message)
        crash_point("smtp.connected")
        if magic == "bounce":
            raise _bounced(message)
        crash_point("smtp.rcpt")
        crash_point("smtp.data")
        before_dot()
        self._save(
            CapturedMessage(
                delivery_id=message.delivery_id,
                message_id=message.message_id,
                attempt=message.attempt,
                envelope_from=message.envelope_from,
                envelope_to=message.envelope_to,
                content=message.content,
                sha256=message.sha256,
            )
        )
        crash_point("smtp.dot")
        crash_point("smtp.accepted")
        return Receipt("captured", 250, "2.0.0", "kept in the test mailbox", message.sha256)

    def close(self) -> None:
        """Nothing is kept open."""


def _magic_name(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return local.partition("+")[0].lower() if domain.lower() == MAGIC_DOMAIN else ""


def _timed_out(message: EmailMessageBytes) -> Retryable:
    receipt = Receipt("connect", 0, "", "connection timed out (asked for by the address)", message.sha256)
    return Retryable(
        "smtp_unreachable",
        "The mail server did not answer; the address asks the test mailbox for this.",
        evidence=receipt.evidence(),
    )


def _bounced(message: EmailMessageBytes) -> Permanent:
    receipt = Receipt("rcpt", 550, "5.1.1", f"{MASK}: no such mailbox", message.sha256)
    return Permanent(
        "mailbox_unknown",
        "The mail server says that there is no such mailbox: 550 5.1.1. Correct the address.",
        evidence=receipt.evidence(),
    )
