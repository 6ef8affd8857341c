# SPDX-License-Identifier: Apache-2.0
"""What every mail transport promises, whether it sends or only keeps.

A transport raises `Retryable` or `Permanent` only when the message was certainly not accepted,
`Ambiguous` when nobody can know, and returns a receipt only when it was accepted.
Nothing it raises or returns holds an address: servers echo them, so replies are masked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from conferral.domain.email_message import EmailMessageBytes
from conferral.reliable.errors import Snooze

MAX_REPLY_CHARACTERS: Final = 300
"""What is kept of a server's reply: its reason, not its advertisement."""
MASK: Final = "<address>"

# Also percent-encoded (in links to explanations) and in the xtext and VERP forms of relays.
_ADDRESS: Final = re.compile(r"[^\s<>()\[\],;:\"']+(?:@|%40|=40|\+40)[^\s<>()\[\],;:\"']+", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SHORTEST_MASKED: Final = 2
"""A local part of one letter would blank out half of every reply."""


@dataclass(frozen=True)
class Receipt:
    """The answer that decided about a message, fit to be stored and shown."""

    stage: str
    """Where it fell: connect ehlo starttls auth mail rcpt data body dot, or captured."""
    code: int
    """The SMTP reply code; 0 where there was no reply."""
    enhanced_code: str
    """RFC 3463, such as 5.1.1; empty where the server gave none."""
    text: str
    """The reply, masked and shortened."""
    message_sha256: str

    def evidence(self) -> dict[str, Any]:
        """Return what is recorded with the attempt."""
        return asdict(self)


class ChannelPaused(Snooze):
    """The mail server refuses us, not the message; the whole channel waits and no attempt is spent."""

    default_code = "smtp_auth_failed"


class Mailer(Protocol):
    """A way to hand a message over, once."""

    def send(self, message: EmailMessageBytes, *, before_dot: Callable[[], None] = ...) -> Receipt:
        """Hand one message over and return the acceptance.

        `before_dot` is called right before the point of no return. If it raises, the message was
        certainly not sent, and the exception goes on to the caller as it is.

        Raises:
            Retryable: certainly not sent; another attempt may work.
            Permanent: certainly not sent; no attempt will ever work.
            Ambiguous: perhaps sent; the answer was lost.
            ChannelPaused: certainly not sent; the server accepts nothing from us.
        """

    def close(self) -> None:
        """Give up what is kept open; a later `send` opens it again."""


def nothing() -> None:
    """Do nothing right before the point of no return."""


def masked(reply: str, *known: str) -> str:
    """Return a server's reply without addresses, control characters and length.

    `known` are texts that identify a person and must not appear even outside an address, such as
    the recipient: its local part is masked wherever it stands as a word.

    >>> masked("550 5.1.1 <zoe@school.example>: user zoe unknown", "zoe@school.example")
    '550 5.1.1 <<address>>: user <address> unknown'
    """
    text = _CONTROL.sub(" ", reply)
    text = _ADDRESS.sub(MASK, text)
    for each in known:
        local = each.rpartition("@")[0] or each
        if len(local) >= _SHORTEST_MASKED:
            text = re.sub(rf"(?<!\w){re.escape(local)}(?!\w)", MASK, text, flags=re.IGNORECASE)
    return text.strip()[:MAX_REPLY_CHARACTERS]
