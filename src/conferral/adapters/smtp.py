# SPDX-License-Identifier: Apache-2.0
"""Send one message over SMTP and know exactly how far it came.

The stage is the whole point: until the terminating dot goes out the message was certainly not
sent, after it only the server's reply tells. So every command is issued here, one by one, and
the dot travels in a write of its own. Never use `smtplib.SMTP.sendmail()`: it hides the stage.
Between the reply to the dot and the caller's commit stands nothing: no log line, metric, RSET or QUIT.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from conferral.adapters import deadlines
from conferral.adapters.deadlines import Watch
from conferral.adapters.mailer import Receipt, nothing
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
class _Server:
    """Where the messages go, and as whom."""

    host: str
    port: int
    tls: Tls
    username: str | None
    password: str | None
    context: ssl.SSLContext | None
    limits: SmtpDeadlines


class SmtpMailer:
    """Mail over one SMTP server, with one connection kept for each thread.

    Safe for threads, and for processes forked after it was built. `bounce` is the address that
    bounces return to, made unique for each delivery (VERP). `idempotency_header` names a header
    that makes the provider drop repeats; it then carries the delivery's id.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Tls = "starttls",
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        bounce: str | None = None,
        idempotency_header: str | None = None,
        limits: SmtpDeadlines | None = None,
    ) -> None:
        if username and tls == "none":
            raise ValueError(
                "SMTP credentials are never sent without TLS: set CONFERRAL_SMTP_TLS to starttls or tls"
            )
        # Made once: reading the certificates of the system costs more than sending a message.
        context = ssl.create_default_context() if tls != "none" else None
        if context is not None and ca_file is not None:
            context.load_verify_locations(ca_file)
        self._server = _Server(host, port, tls, username, password, context, limits or SmtpDeadlines())
        self._bounce = bounce
        self._idempotency_header = idempotency_header
        # By process and thread. Only its owner takes a session out, and every change is one dict
        # operation, so there is no lock that a fork could leave locked.
        self._sessions: dict[tuple[int, int], _Session] = {}

    def send(self, message: EmailMessageBytes, *, before_dot: Callable[[], None] = nothing) -> Receipt:
        """Send one message; see `Mailer.send`.

        Raises:
            Retryable: `smtp_unreachable`, `smtp_throttled`, `smtp_temporary`.
            Permanent: `mailbox_unknown`, `mail_refused`, `email_needs_smtputf8`.
            Ambiguous: `email_outcome_unknown`.
            ChannelPaused: `smtp_auth_failed`, `smtp_sender_refused`.
        """
        key = (os.getpid(), threading.get_ident())
        content = self._content(message)
        with deadlines.within(self._server.limits.total_seconds) as watch:
            session = self._ready(key, watch, message)
            try:
                session.begin(self._envelope_from(message), len(content))
                session.write(content)
                before_dot()
                receipt = session.finish()
            except BaseException:
                self._put_back(key, session)
                raise
            self._put_back(key, session)
            return receipt

    def close(self) -> None:
        """Say QUIT on every connection of this process; call it when no message is under way."""
        for key in list(self._sessions):
            session = self._sessions.pop(key, None)
            if session is not None:
                session.leave(politely=key[0] == os.getpid())

    def _ready(self, key: tuple[int, int], watch: Watch, message: EmailMessageBytes) -> _Session:
        """Return this thread's connection if it can carry another message, else a new one."""
        session = self._sessions.pop(key, None)
        if session is not None:
            session.take(watch, message)
            if session.can_go_on():
                return session
            session.leave(politely=True)
        self._drop_idle()
        session = _Session(self._server)
        session.take(watch, message)
        try:
            session.open()
        except BaseException:
            session.leave(politely=False)
            raise
        crash_point("smtp.connected")
        return session

    def _put_back(self, key: tuple[int, int], session: _Session) -> None:
        if session.is_usable:
            self._sessions[key] = session
        else:
            session.leave(politely=False)

    def _drop_idle(self) -> None:
        """Close what ended threads and the process we were forked from have left behind."""
        for key, session in list(self._sessions.items()):
            is_foreign = key[0] != os.getpid()
            if (is_foreign or session.is_idle) and self._sessions.pop(key, None) is session:
                session.leave(politely=False)

    def _envelope_from(self, message: EmailMessageBytes) -> str:
        if self._bounce is None:
            return message.envelope_from
        local, _, domain = self._bounce.rpartition("@")
        return f"{local}+{message.delivery_id}@{domain}"

    def _content(self, message: EmailMessageBytes) -> bytes:
        if self._idempotency_header is None:
            return message.content
        return f"{self._idempotency_header}: {message.delivery_id}\r\n".encode("ascii") + message.content


class _Session:
    """One connection and the stage it is at; used by one thread only."""

    _watch: Watch
    _message: EmailMessageBytes

    def __init__(self, server: _Server) -> None:
        self._server = server
        # The name is given here because smtplib would ask the DNS for it, which knows no deadline.
        self._smtp = smtplib.SMTP(local_hostname="localhost", timeout=server.limits.command_seconds)
        self._stage = "connect"
        self._last_code = NO_REPLY
        self._is_clean = True
        self._begun = 0
        self._used_at = time.monotonic()

    def take(self, watch: Watch, message: EmailMessageBytes) -> None:
        """Turn to a message and to the deadline it has."""
        self._watch, self._message = watch, message

    @property
    def is_usable(self) -> bool:
        """Whether the server answered the last command and did not say that it closes."""
        is_answered = self._last_code in _OK or self._last_code >= _FIRST_REFUSAL
        return self._stage in _IN_TRANSACTION and is_answered and self._last_code != _CLOSING

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
        return code in _OK

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


def _own_name(connected: socket.socket) -> str:
    """Return our name for EHLO: the host's full name, or else its address as RFC 5321 4.1.3 writes it."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = str(connected.getsockname()[0])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
