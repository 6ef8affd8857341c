# SPDX-License-Identifier: Apache-2.0
"""The mail transport that sends: one SMTP server, one connection kept for each thread.

What happens on a connection is in `smtp_session`, what a reply means in `smtp_replies`.
Between the reply to the dot and the caller's commit stands nothing: no log line, metric, RSET or QUIT.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable

from conferral.adapters import deadlines
from conferral.adapters.deadlines import Watch
from conferral.adapters.mailer import Receipt, nothing
from conferral.adapters.smtp_session import Server, Session, SmtpDeadlines, Tls
from conferral.domain.email_message import EmailMessageBytes
from conferral.reliable.crash_points import crash_point

__all__ = ["SmtpDeadlines", "SmtpMailer", "Tls"]


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
        self._server = Server(host, port, tls, username, password, context, limits or SmtpDeadlines())
        self._bounce = bounce
        self._idempotency_header = idempotency_header
        # By process and thread. Only its owner takes a session out, and every change is one dict
        # operation, so there is no lock that a fork could leave locked.
        self._sessions: dict[tuple[int, int], Session] = {}

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

    def _ready(self, key: tuple[int, int], watch: Watch, message: EmailMessageBytes) -> Session:
        """Return this thread's connection if it can carry another message, else a new one."""
        session = self._sessions.pop(key, None)
        if session is not None:
            session.take(watch, message)
            if session.can_go_on():
                return session
            session.leave(politely=True)
        self._drop_idle()
        session = Session(self._server)
        session.take(watch, message)
        try:
            session.open()
        except BaseException:
            session.leave(politely=False)
            raise
        crash_point("smtp.connected")
        return session

    def _put_back(self, key: tuple[int, int], session: Session) -> None:
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
