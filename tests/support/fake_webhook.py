# SPDX-License-Identifier: Apache-2.0
"""A webhook receiver that answers what a test asks for, and remembers and verifies everything.

In a test: `with FakeWebhook(answers=[status(503), status(200)]) as receiver: …`.
As a program: `python tests/support/fake_webhook.py --port 8700 --history hooks.jsonl --secret whsec_…`.
It is written on plain sockets because a test must be able to send an answer byte by byte.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import random
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

POLL_SECONDS: Final = 0.02
"""How often a waiting thread looks whether the receiver is to end."""
DRIP_SECONDS: Final = 0.05
_CHUNK: Final = b"x" * 65_536


@dataclass(frozen=True)
class Reaction:
    """What the receiver does with one request."""

    kind: Literal["answer", "huge", "drip_headers", "drip_body", "endless", "reset", "close", "hang"]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    size: int = 0
    delay_seconds: float = 0.0


def status(code: int, *, body: bytes = b"ok", delay_seconds: float = 0.0, **headers: str) -> Reaction:
    """Answer with a status; header names take underscores: `retry_after="120"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reaction("answer", code, named, body, delay_seconds=delay_seconds)


def redirect(to: str, code: int = 301) -> Reaction:
    """Answer with a redirect."""
    return status(code, location=to)


def huge(size: int) -> Reaction:
    """Answer 200 with a body of `size` bytes."""
    return Reaction("huge", size=size)


def drip_headers() -> Reaction:
    """Send one more header byte every 50 ms, without end."""
    return Reaction("drip_headers")


def drip_body() -> Reaction:
    """Announce a long body and send one byte of it every 50 ms."""
    return Reaction("drip_body")


def endless() -> Reaction:
    """Send a body without a length, one byte every 50 ms, without end."""
    return Reaction("endless")


def reset() -> Reaction:
    """Close the connection with RST instead of an answer."""
    return Reaction("reset")


def close() -> Reaction:
    """Close the connection without an answer."""
    return Reaction("close")


def hang() -> Reaction:
    """Never answer."""
    return Reaction("hang")


@dataclass(frozen=True)
class ReceivedWebhook:
    """One request, with the judgement of its signature."""

    connection: int
    path: str
    headers: Mapping[str, str]
    body: bytes
    is_signed: bool | None
    """None if the receiver knows no secret."""
    status: int
    """What was answered; 0 for no complete answer."""
    at: float

    @property
    def webhook_id(self) -> str:
        """The identity that repeats share."""
        return self.headers.get("webhook-id", "")

    def as_line(self) -> dict[str, Any]:
        """Return what the history file keeps of it."""
        return {
            "webhook_id": self.webhook_id,
            "timestamp": self.headers.get("webhook-timestamp", ""),
            "path": self.path,
            "sha256": hashlib.sha256(self.body).hexdigest(),
            "body": self.body.decode("utf-8", errors="replace"),
            "is_signed": self.is_signed,
            "status": self.status,
            "connection": self.connection,
            "at": self.at,
        }


@dataclass
class History:
    """What the receiver saw, in order."""

    connections: int = 0
    requests: list[ReceivedWebhook] = field(default_factory=list)


class FakeWebhook:
    """The receiver; a context manager that listens on 127.0.0.1 from `__init__` on."""

    def __init__(
        self,
        *,
        port: int = 0,
        answers: Iterable[Reaction] = (),
        otherwise: Reaction | None = None,
        chances: Iterable[tuple[Reaction, float]] = (),
        secrets: Iterable[str] = (),
        tls: ssl.SSLContext | None = None,
        history_file: Path | None = None,
        seed: int = 0,
    ) -> None:
        """Take the next answers in order, then those that happen by chance, then `otherwise` (200)."""
        self.history = History()
        self._answers = deque(answers)
        self._otherwise = otherwise or status(200)
        self._chances = tuple(chances)
        self._secrets = tuple(secrets)
        self._tls = tls
        self._history_file = history_file
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.is_ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(POLL_SECONDS)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_ending.set()
        for thread in list(self._threads):
            thread.join(timeout=5)
        self._listener.close()

    @property
    def url(self) -> str:
        """Where to send webhooks to."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook"

    def next_reaction(self) -> Reaction:
        """Return what is to happen to this request."""
        with self._lock:
            if self._answers:
                return self._answers.popleft()
            for reaction, chance in self._chances:
                if self._random.random() < chance:
                    return reaction
        return self._otherwise

    def keep(self, request: ReceivedWebhook) -> None:
        """Remember one request before its sender hears of it."""
        with self._lock:
            self.history.requests.append(request)
            if self._history_file is not None:
                with self._history_file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(request.as_line()) + "\n")

    def judged(self, headers: Mapping[str, str], body: bytes) -> bool | None:
        """Whether the signature was made with one of the secrets; written without the code under test."""
        if not self._secrets:
            return None
        signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
        expected = set()
        for secret in self._secrets:
            key = base64.b64decode(secret.removeprefix("whsec_"))
            expected.add("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode())
        return bool(expected & set(headers.get("webhook-signature", "").split(" ")))

    def _accept(self) -> None:
        while not self.is_ending.is_set():
            try:
                connected, _ = self._listener.accept()
            except TimeoutError:
                continue
            with self._lock:
                self.history.connections += 1
                number = self.history.connections
            self._spawn(self._serve, connected, number)

    def _serve(self, connected: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, _Gone), connected:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                _Conversation(self, connected, number).run()
                return
            connected.settimeout(5)
            with self._tls.wrap_socket(connected, server_side=True) as secured:
                _Conversation(self, secured, number).run()

    def _spawn(self, target: Any, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="fake-webhook", daemon=True)
        self._threads.append(thread)
        thread.start()


class _Gone(Exception):
    """The connection is over."""


class _Conversation:
    def __init__(self, server: FakeWebhook, connected: socket.socket, number: int) -> None:
        self._server, self._socket, self._number = server, connected, number
        self._socket.settimeout(POLL_SECONDS)
        self._buffer = b""

    def run(self) -> None:
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:])
            }
            body = self._exactly(int(headers.get("content-length", "0")))
            reaction = self._server.next_reaction()
            is_answered = reaction.kind in {"answer", "huge"}
            request = ReceivedWebhook(
                connection=self._number,
                path=path,
                headers=headers,
                body=body,
                is_signed=self._server.judged(headers, body),
                status=reaction.status if is_answered else 0,
                at=time.time(),
            )
            self._server.keep(request)
            self._server.is_ending.wait(reaction.delay_seconds)
            getattr(self, f"_{reaction.kind}")(reaction)

    def _answer(self, reaction: Reaction) -> None:
        headers = {
            "content-length": str(len(reaction.body)),
            "content-type": "text/plain",
            **reaction.headers,
        }
        self._send(_head(reaction.status, headers) + reaction.body)

    def _huge(self, reaction: Reaction) -> None:
        self._send(_head(200, {"content-length": str(reaction.size)}))
        left = reaction.size
        while left > 0:
            self._send(_CHUNK[:left])
            left -= len(_CHUNK)

    def _drip_headers(self, _reaction: Reaction) -> None:
        self._send(b"HTTP/1.1 200 OK\r\nx-slow: ")
        self._drip()

    def _drip_body(self, _reaction: Reaction) -> None:
        self._send(_head(200, {"content-length": "10000"}))
        self._drip()

    def _endless(self, _reaction: Reaction) -> None:
        self._send(_head(200, {"connection": "close"}))
        self._drip()

    def _reset(self, _reaction: Reaction) -> None:
        # A linger time of zero turns close() into RST.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Gone

    def _close(self, _reaction: Reaction) -> None:
        raise _Gone

    def _hang(self, _reaction: Reaction) -> None:
        while not self._server.is_ending.is_set():
            self._receive()
        raise _Gone

    def _drip(self) -> None:
        while not self._server.is_ending.wait(DRIP_SECONDS):
            self._send(b"x")
        raise _Gone

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._server.is_ending.is_set():
                raise _Gone
            with contextlib.suppress(TimeoutError):
                view = view[self._socket.send(view) :]

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._receive()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _receive(self) -> None:
        while not self._server.is_ending.is_set():
            try:
                received = self._socket.recv(65_536)
            except TimeoutError:
                continue
            if not received:
                raise _Gone
            self._buffer += received
            return
        raise _Gone


def _head(code: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {code} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _parsed_fault(text: str, retry_after: str | None = None) -> tuple[Reaction, float]:
    """Return reaction and chance of WHAT[@CHANCE]; WHAT is a status, reset, close, hang or a drip."""
    what, _, chance = text.partition("@")
    named = {each.__name__: each() for each in (reset, close, hang, drip_headers, drip_body)}
    headers = {"retry_after": retry_after} if retry_after else {}
    return named.get(what) or status(int(what), **headers), float(chance or 1)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A webhook receiver that fails as asked.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--history", type=Path, help="append one JSON line a request here")
    parser.add_argument("--secret", action="append", default=[], help="verify signatures with this secret")
    parser.add_argument(
        "--fault", action="append", default=[], help="503|410|reset|close|hang|drip_body[@CHANCE]"
    )
    parser.add_argument("--retry-after", help="this header in every answer with a fault's status")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    receiver = FakeWebhook(
        port=options.port,
        chances=[_parsed_fault(each, options.retry_after) for each in options.fault],
        secrets=options.secret,
        history_file=options.history,
        seed=options.seed,
    )
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with receiver:
        sys.stdout.write(f"listening on {receiver.url}\n")
        sys.stdout.flush()
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
