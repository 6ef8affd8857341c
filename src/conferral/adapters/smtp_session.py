# SPDX-License-Identifier: Apache-2.0
"""One SMTP connection, command by command, with the stage it is at.

The stage is the whole point: until the terminating dot goes out the message was certainly not
sent, after it only the server's reply tells. So every command is issued here, one by one, and
the dot travels in a write of its own. Never use `smtplib.SMTP.sendmail()`: it hides the stage.
"""

from __future__ import annotations

import base64
import contextlib
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from conferral.adapters.deadlines import Watch
from conferral.adapters.mailer import Receipt
from conferral.adapters.smtp_replies import NO_REPLY, failure, receipt_of
from conferral.domain.email_message import EmailMessageBytes
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent

Tls = Literal["starttls", "tls", "none"]

COMMAND_SECONDS: Final = 20.0
"""For connecting and for the reply to each command before the dot."""
DOT_SECONDS: Final = 60.0
"""For the reply to the dot. RFC 5321 4.5.3.2.6 allows a server ten minutes; giving up makes an ambiguity."""
TOTAL_SECONDS: Final = 90.0
"""For the whole message, whatever the server does."""
PROBE_SECONDS: Final = 5.0
"""For the reply to NOOP before a connection is used again; a new one is cheaper than waiting longer."""
QUIT_SECONDS: Final = 1.0
"""For the reply to QUIT: politeness, worth no more."""
MESSAGES_PER_CONNECTION: Final = 100
"""Relays commonly close a connection after about this many."""
IDLE_SECONDS: Final = 30.0
"""A connection unused for longer is not trusted any more."""
MAX_REPLY_LINE: Final = 4_096
"""RFC 5321 4.5.3.1.5 allows 512 octets; some servers explain themselves at length."""
MAX_REPLY_LINES: Final = 100
"""More lines than any server has extensions."""

_REPLY_LINE: Final = re.compile(rb"(?P<code>[2-5]\d\d)(?:(?P<more>[ -])(?P<text>.*?))?[ \t\r]*\n")
_OK: Final = range(200, 300)
_AUTHENTICATED: Final = frozenset({235})
_CONTINUE: Final = frozenset({334})
_START_INPUT: Final = frozenset({354})
_MECHANISM_UNKNOWN: Final = frozenset({500, 502, 504})
_CLOSING: Final = 421
_FIRST_REFUSAL: Final = 400
_IN_TRANSACTION: Final = frozenset({"mail", "rcpt", "data", "dot"})
_LEADING_DOT: Final = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True)
class SmtpDeadlines:
    """How long an SMTP server may take, in seconds."""

    command_seconds: float = COMMAND_SECONDS
    dot_seconds: float = DOT_SECONDS
    total_seconds: float = TOTAL_SECONDS


@dataclass(frozen=True)
class Server:
    """Where the messages go, and as whom."""

    host: str
    port: int
    tls: Tls
    username: str | None
    password: str | None
    context: ssl.SSLContext | None
    limits: SmtpDeadlines


class Session:
    """One connection and the stage it is at; used by one thread only."""

    _watch: Watch
    _message: EmailMessageBytes

    def __init__(self, server: Server) -> None:
        self._server = server
        # The name is given here because smtplib would ask the DNS for it, which knows no deadline.
        self._smtp = _Smtp(local_hostname="localhost", timeout=server.limits.command_seconds)
        self._stage = "connect"
        self._last_code = NO_REPLY
        self._is_clean = False
        self._begun = 0
        self._used_at = time.monotonic()

    def take(self, watch: Watch, message: EmailMessageBytes) -> None:
        """Turn to a message and to the deadline it has."""
        self._watch, self._message = watch, message

    @property
    def is_usable(self) -> bool:
        """Whether both sides agree where they are: between messages, or after a plain refusal."""
        is_refused = self._last_code >= _FIRST_REFUSAL and self._last_code != _CLOSING
        return self._is_clean or (is_refused and self._stage in _IN_TRANSACTION)

    @property
    def is_idle(self) -> bool:
        """Whether the connection was unused for longer than it is trusted."""
        return time.monotonic() - self._used_at > IDLE_SECONDS

    def open(self) -> None:
        """Connect, secure the connection and log in."""
        context, smtp = self._server.context, self._smtp
        with self._certain("connect"):
            self._connect()
            if context is not None and self._server.tls == "tls":
                self._secure(context)
            self._expect(_OK, *smtp.getreply())
        self._hello()
        if context is not None and self._server.tls == "starttls":
            with self._certain("starttls"):
                self._expect(_OK, *smtp.docmd("STARTTLS"))
                self._secure(context)
            self._hello()
        if self._server.username:
            with self._certain("auth"):
                self._log_in(self._server.username, self._server.password or "")
        self._is_clean = True

    def can_go_on(self) -> bool:
        """Whether the connection is young enough and the server, asked with NOOP, still answers."""
        if self._begun >= MESSAGES_PER_CONNECTION or self.is_idle:
            return False
        try:
            self._watch.attach(self._socket)
            self._socket.settimeout(min(PROBE_SECONDS, self._server.limits.command_seconds))
            # A refused message leaves its sender behind in the server; RSET asks and clears at once.
            code, _ = self._smtp.docmd("NOOP" if self._is_clean else "RSET")
            self._socket.settimeout(self._server.limits.command_seconds)
        except (smtplib.SMTPException, OSError):
            return False
        self._is_clean = code in _OK
        return self._is_clean

    def begin(self, envelope_from: str, size: int) -> None:
        """Name sender and recipient and ask for the message of `size` bytes."""
        smtp = self._smtp
        self._begun += 1
        options = f" SIZE={size}" if smtp.has_extn("size") else ""
        smtp.command_encoding = "ascii"
        if self._message.needs_smtputf8:
            smtp.command_encoding = "utf-8"
            options += " BODY=8BITMIME SMTPUTF8"
            self._require_smtputf8()
        self._is_clean = False
        with self._certain("mail"):
            self._expect(_OK, *smtp.docmd("MAIL", f"FROM:<{envelope_from}>{options}"))
        with self._certain("rcpt"):
            self._expect(_OK, *smtp.docmd("RCPT", f"TO:<{self._message.envelope_to}>"))
        crash_point("smtp.rcpt")
        with self._certain("data"):
            self._expect(_START_INPUT, *smtp.docmd("DATA"))

    def write(self, content: bytes) -> None:
        """Write everything but the dot, and go no further when too little time is left for its reply."""
        limits = self._server.limits
        with self._certain("body"):
            self._smtp.send(_LEADING_DOT.sub(b"..", content))
            if self._watch.remaining() < min(limits.command_seconds, limits.dot_seconds):
                raise TimeoutError
        crash_point("smtp.data")

    def finish(self) -> Receipt:
        """Send the dot and return the acceptance; from here on every loss is ambiguous."""
        code, reply = NO_REPLY, b""
        self._socket.settimeout(min(self._server.limits.dot_seconds, self._watch.remaining() + QUIT_SECONDS))
        self._used_at = time.monotonic()
        self._stage = "dot"
        try:
            self._smtp.send(b".\r\n")
            crash_point("smtp.dot")
            code, reply = self._smtp.getreply()
            crash_point("smtp.accepted")
        except (smtplib.SMTPException, OSError):
            code, reply = NO_REPLY, b""
        receipt = self._receipt(code, reply)
        if receipt.code not in _OK:
            raise failure(receipt)
        self._is_clean = True
        return receipt

    def leave(self, *, politely: bool) -> None:
        """Close the connection, with QUIT if there is time for politeness."""
        if politely and self._smtp.sock is not None:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                self._socket.settimeout(QUIT_SECONDS)
                self._smtp.docmd("QUIT")
        self._smtp.close()

    @property
    def _socket(self) -> socket.socket:
        connected = self._smtp.sock
        if connected is None:
            raise smtplib.SMTPServerDisconnected
        return connected

    @contextlib.contextmanager
    def _certain(self, stage: str) -> Iterator[None]:
        """Name the stage, and turn every loss inside into "certainly not sent"."""
        self._stage = stage
        try:
            yield
        except (smtplib.SMTPException, OSError):
            raise failure(self._receipt(NO_REPLY, b"")) from None

    def _expect(self, codes: Container[int], code: int, reply: bytes) -> None:
        receipt = self._receipt(code, reply)
        if receipt.code not in codes:
            raise failure(receipt)

    def _receipt(self, code: int, reply: bytes) -> Receipt:
        known = (self._message.envelope_to, self._server.username or "")
        receipt = receipt_of(self._stage, code, reply, sha256=self._message.sha256, known=known)
        self._last_code = receipt.code
        return receipt

    def _connect(self) -> None:
        seconds = min(self._server.limits.command_seconds, self._watch.remaining())
        connected = socket.create_connection((self._server.host, self._server.port), timeout=seconds)
        # The dot is a small write behind a large one: with Nagle's algorithm it waits for 40 ms.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch.attach(connected)
        self._smtp.sock = connected
        self._smtp.local_hostname = _own_name(connected)

    def _secure(self, context: ssl.SSLContext) -> None:
        # What came in clear text behind the reply to STARTTLS is dropped with its buffer (CVE-2011-0411).
        self._smtp.file = None
        self._smtp.sock = context.wrap_socket(self._socket, server_hostname=self._server.host)

    def _hello(self) -> None:
        with self._certain("ehlo"):
            self._expect(_OK, *self._smtp.ehlo())

    def _log_in(self, username: str, password: str) -> None:
        """Authenticate by PLAIN (RFC 4616), or by LOGIN where the server knows no better."""
        offered = self._smtp.esmtp_features.get("auth", "").upper().split()
        code, reply = next(iter(_MECHANISM_UNKNOWN)), b""
        if "PLAIN" in offered:
            code, reply = self._smtp.docmd("AUTH", "PLAIN " + _base64(f"\0{username}\0{password}"))
        if code in _MECHANISM_UNKNOWN and "LOGIN" in offered:
            code, reply = self._smtp.docmd("AUTH", "LOGIN")
            self._expect(_CONTINUE, code, reply)
            self._expect(_CONTINUE, *self._smtp.docmd(_base64(username)))
            code, reply = self._smtp.docmd(_base64(password))
        self._expect(_AUTHENTICATED, code, reply)

    def _require_smtputf8(self) -> None:
        if self._smtp.has_extn("smtputf8"):
            return
        self._stage = "mail"
        raise Permanent(
            "email_needs_smtputf8",
            "The address has letters beyond ASCII before its @, and the mail server cannot take those "
            "(SMTPUTF8, RFC 6531). Use another address or another server.",
            evidence=self._receipt(_OK.start, b"").evidence(),
        )


class _Smtp(smtplib.SMTP):
    """smtplib, which would take a reply that was cut off in the middle of a line for a complete one."""

    def getreply(self) -> tuple[int, bytes]:
        """Return a complete reply as code and text, or code -1 if it is not SMTP.

        Raises:
            SMTPServerDisconnected: the connection ended, or timed out, before the reply was complete.
        """
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected
        if self.file is None:
            self.file = self.sock.makefile("rb")
        texts = []
        for _ in range(MAX_REPLY_LINES):
            line = self.file.readline(MAX_REPLY_LINE)
            if not line.endswith(b"\n"):
                if len(line) == MAX_REPLY_LINE:
                    break
                raise smtplib.SMTPServerDisconnected
            match = _REPLY_LINE.fullmatch(line)
            if match is None:
                break
            texts.append(match["text"])
            if match["more"] != b"-":
                return int(match["code"]), b"\n".join(texts)
        return -1, b""


def _own_name(connected: socket.socket) -> str:
    """Return our name for EHLO: the host's full name, or else its address as RFC 5321 4.1.3 writes it."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = str(connected.getsockname()[0])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
