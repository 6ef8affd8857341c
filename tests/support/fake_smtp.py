# SPDX-License-Identifier: Apache-2.0
"""An SMTP server that does at each stage what a test asks for, and remembers everything.

In a test: `with FakeSmtp(faults={"rcpt": [reply("550 5.1.1 no such user")]}) as server: …`.
As a program: `python tests/support/fake_smtp.py --port 2525 --history mail.jsonl --fault dot=drop@0.03`.
It is written on plain sockets because a test must be able to drop a connection between any two bytes.

Stages: connect ehlo starttls auth mail rcpt data body dot noop rset quit. A fault at `body`
happens when the message begins to arrive, one at `dot` when it has arrived completely.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import random
import signal
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any, Final, Literal, Self

STAGES: Final = frozenset(
    {"connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "dot", "noop", "rset", "quit"}
)
POLL_SECONDS: Final = 0.02
"""How often a waiting thread looks whether the server is to end."""


@dataclass(frozen=True)
class Fault:
    """What the server does instead of going on: answer something, wait, close, or never answer."""

    kind: Literal["reply", "drop", "hang", "drip"]
    text: str = ""
    delay_seconds: float = 0.0


def reply(text: str, *, delay_seconds: float = 0.0) -> Fault:
    """Answer with this line, such as "450 4.2.0 greylisted"; a good one only delays."""
    return Fault("reply", text, delay_seconds)


def drop(text: str = "") -> Fault:
    """Close the connection without an answer, or after sending this much of one."""
    return Fault("drop", text)


def hang() -> Fault:
    """Keep the connection open and never answer."""
    return Fault("hang")


def drip() -> Fault:
    """Answer one character every 50 ms, and never finish."""
    return Fault("drip")


@dataclass(frozen=True)
class ReceivedMessage:
    """One message of which the dot arrived."""

    connection: int
    envelope_from: str
    envelope_to: tuple[str, ...]
    content: bytes
    answer: str
    """What the server said to the dot; empty if it said nothing."""
    at: float

    @property
    def message_id(self) -> str:
        """The Message-ID header."""
        return str(BytesHeaderParser().parsebytes(self.content).get("Message-ID", ""))

    def as_line(self) -> dict[str, Any]:
        """Return what the history file keeps of it."""
        return {
            "message_id": self.message_id,
            "date": str(BytesHeaderParser().parsebytes(self.content).get("Date", "")),
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "from": self.envelope_from,
            "to": list(self.envelope_to),
            "answer": self.answer,
            "connection": self.connection,
            "at": self.at,
        }


@dataclass
class History:
    """What the server saw, in order."""

    connections: int = 0
    commands: list[str] = field(default_factory=list)
    messages: list[ReceivedMessage] = field(default_factory=list)

    def verbs(self) -> list[str]:
        """Return the first words of the commands, in capitals."""
        return [command.split(" ", 1)[0].upper() for command in self.commands]

    def accepted(self) -> list[ReceivedMessage]:
        """Return the messages whose sender was told so."""
        return [message for message in self.messages if message.answer.startswith("2")]


class FakeSmtp:
    """The server; a context manager that listens on 127.0.0.1 from `__init__` on."""

    def __init__(
        self,
        *,
        port: int = 0,
        faults: Mapping[str, Iterable[Fault | None]] | None = None,
        recipients: Mapping[str, Fault] | None = None,
        chances: Mapping[str, Iterable[tuple[Fault, float]]] | None = None,
        credentials: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        extensions: Iterable[str] = ("SIZE 10485760", "8BITMIME", "SMTPUTF8"),
        mechanisms: str = "PLAIN LOGIN",
        history_file: Path | None = None,
        seed: int = 0,
    ) -> None:
        """Take what happens at the next passages of a stage (None: nothing), by recipient, or by chance."""
        assert {*(faults or {}), *(chances or {})} <= STAGES
        self.history = History()
        self._faults = {stage: deque(actions) for stage, actions in (faults or {}).items()}
        self._recipients = {name.lower(): fault for name, fault in (recipients or {}).items()}
        self._chances = {stage: list(each) for stage, each in (chances or {}).items()}
        self.credentials, self._mechanisms = credentials, mechanisms
        self.tls, self._implicit_tls = tls, implicit_tls
        self._extensions = tuple(extensions)
        self._history_file = history_file
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.is_ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self._listener.settimeout(POLL_SECONDS)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_ending.set()
        for thread in list(self._threads):
            thread.join(timeout=5)
        self._listener.close()

    def next_fault(self, stage: str, recipient: str = "") -> Fault | None:
        """Return what is to happen at this passage of a stage."""
        with self._lock:
            planned = self._faults.get(stage)
            if planned:
                return planned.popleft()
            for fault, chance in self._chances.get(stage, ()):
                if self._random.random() < chance:
                    return fault
        return self._recipients.get(recipient.lower()) if stage == "rcpt" else None

    def keep(self, message: ReceivedMessage) -> None:
        """Remember one message, in the file before its sender hears of it."""
        with self._lock:
            self.history.messages.append(message)
            if self._history_file is not None:
                with self._history_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(message.as_line()) + "\n")

    def offers(self, *, is_secure: bool) -> list[str]:
        """Return the extensions named in the reply to EHLO."""
        found = list(self._extensions)
        if self.tls is not None and not is_secure:
            found.append("STARTTLS")
        if self.credentials is not None and (is_secure or self.tls is None):
            found.append(f"AUTH {self._mechanisms}")
        return found

    def _accept(self) -> None:
        while not self.is_ending.is_set():
            try:
                connected, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.history.connections += 1
            self._spawn(self._serve, connected, self.history.connections)

    def _serve(self, connected: socket.socket, number: int) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = _Conversation(self, connected, number)
        try:
            if self._implicit_tls and self.tls is not None:
                conversation.secure(self.tls)
            conversation.run()
        except (OSError, _Gone):
            conversation.socket.close()

    def _spawn(self, target: Any, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="fake-smtp", daemon=True)
        self._threads.append(thread)
        thread.start()


class _Gone(Exception):
    """The connection is over."""


class _Conversation:
    def __init__(self, server: FakeSmtp, connected: socket.socket, number: int) -> None:
        self._server, self.socket, self._number = server, connected, number
        self.socket.settimeout(POLL_SECONDS)
        self._buffer = b""
        self._is_secure = False
        self._from = ""
        self._to: list[str] = []

    def secure(self, context: ssl.SSLContext) -> None:
        self.socket.settimeout(5)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.socket.settimeout(POLL_SECONDS)
        self._is_secure = True

    def run(self) -> None:
        self._answer("connect", "220 fake.example ESMTP")
        while True:
            line = self._line().decode("utf-8", errors="replace")
            self._server.history.commands.append(line)
            verb, _, rest = line.partition(" ")
            handler = getattr(self, f"_on_{verb.lower()}", None)
            if handler is None:
                self._say("500 5.5.1 unknown command")
            else:
                handler(rest)

    def _on_ehlo(self, _rest: str) -> None:
        lines = ["fake.example", *self._server.offers(is_secure=self._is_secure)]
        last = len(lines) - 1
        text = "\r\n".join(f"250{' ' if at == last else '-'}{line}" for at, line in enumerate(lines))
        self._answer("ehlo", text)

    def _on_starttls(self, _rest: str) -> None:
        if self._server.tls is None:
            self._say("502 5.5.1 no TLS here")
        elif self._answer("starttls", "220 2.0.0 go ahead"):
            self.secure(self._server.tls)

    def _on_auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        if mechanism.upper() == "PLAIN":
            _, username, password = base64.b64decode(initial).decode().split("\0")
        else:
            self._say("334 VXNlcm5hbWU6")
            username = base64.b64decode(self._line()).decode()
            self._say("334 UGFzc3dvcmQ6")
            password = base64.b64decode(self._line()).decode()
        good = (username, password) == self._server.credentials
        self._answer("auth", "235 2.7.0 welcome" if good else f"535 5.7.8 bad credentials for {username}")

    def _on_mail(self, rest: str) -> None:
        self._from, self._to = _path(rest), []
        self._answer("mail", "250 2.1.0 sender ok")

    def _on_rcpt(self, rest: str) -> None:
        if self._answer("rcpt", "250 2.1.5 recipient ok", recipient=_path(rest)):
            self._to.append(_path(rest))

    def _on_data(self, _rest: str) -> None:
        if not self._answer("data", "354 go ahead"):
            return
        fault = self._server.next_fault("body")
        if fault is not None:
            self._receive()
            self._act(fault)
        lines = []
        while (line := self._line()) != b".":
            lines.append(line[1:] if line.startswith(b".") else line)
        self._finish(b"".join(line + b"\r\n" for line in lines))

    def _finish(self, content: bytes) -> None:
        fault = self._server.next_fault("dot") or reply("250 2.0.0 queued as 42")
        answer = fault.text if fault.kind == "reply" else ""
        to = tuple(self._to)
        self._server.keep(ReceivedMessage(self._number, self._from, to, content, answer, at=time.time()))
        self._act(fault)

    def _on_noop(self, _rest: str) -> None:
        self._answer("noop", "250 2.0.0 ok")

    def _on_rset(self, _rest: str) -> None:
        self._from, self._to = "", []
        self._answer("rset", "250 2.0.0 ok")

    def _on_quit(self, _rest: str) -> None:
        self._answer("quit", "221 2.0.0 bye")
        raise _Gone

    def _answer(self, stage: str, good: str, *, recipient: str = "") -> bool:
        """Say what is planned for this passage, else the good answer; return whether it was good."""
        fault = self._server.next_fault(stage, recipient)
        if fault is None:
            self._say(good)
            return True
        self._act(fault)
        return fault.text[:1] in {"2", "3"}

    def _act(self, fault: Fault) -> None:
        self._server.is_ending.wait(fault.delay_seconds)
        if fault.kind == "reply":
            self._say(fault.text)
            if fault.text.startswith("421"):
                raise _Gone
            return
        if fault.kind == "drop":
            self.socket.sendall(fault.text.encode())
            raise _Gone
        # A server that hangs does not read, either: a large message then stops half-way.
        while not self._server.is_ending.wait(0.05):
            if fault.kind == "drip":
                self.socket.sendall(b"2")
        raise _Gone

    def _say(self, text: str) -> None:
        self.socket.sendall(text.encode() + b"\r\n")

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _receive(self) -> None:
        while not self._server.is_ending.is_set():
            try:
                received = self.socket.recv(65536)
            except TimeoutError:
                continue
            if not received:
                raise _Gone
            self._buffer += received
            return
        raise _Gone


def _path(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]


def _parsed_fault(text: str) -> tuple[str, Fault, float]:
    """Return stage, fault and chance of STAGE=WHAT[@CHANCE]; WHAT is drop, hang, drip or a reply."""
    stage, _, rest = text.partition("=")
    what, _, chance = rest.rpartition("@") if "@" in rest else (rest, "", "1")
    named = {"drop": drop(), "hang": hang(), "drip": drip()}
    return stage, named.get(what) or reply(what), float(chance)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="An SMTP server that fails as asked.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--history", type=Path, help="append one JSON line a message here")
    parser.add_argument("--fault", action="append", default=[], help="STAGE=drop|hang|drip|'450 …'[@CHANCE]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    chances: dict[str, list[tuple[Fault, float]]] = {}
    for stage, fault, chance in map(_parsed_fault, options.fault):
        chances.setdefault(stage, []).append((fault, chance))
    server = FakeSmtp(
        port=options.port,
        chances=chances,
        recipients={"bounce@test.invalid": reply("550 5.1.1 no such user")},
        history_file=options.history,
        seed=options.seed,
    )
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with server:
        sys.stdout.write(f"listening on 127.0.0.1:{server.port}\n")
        sys.stdout.flush()
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
