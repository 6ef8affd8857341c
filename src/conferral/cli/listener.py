# SPDX-License-Identifier: Apache-2.0
"""`conferral webhooks listen`: a temporary endpoint on this machine that checks every signature.

It listens on loopback only, registers itself, shows what arrives and removes itself at the end. Whatever
arrives is believed only after its signature was verified, as every receiver should do.
"""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any, NoReturn

import click
import urllib3

from conferral.cli import installation, showing
from conferral.cli.main import FAILED, UNAVAILABLE
from conferral.cli.progress import STILL_RUNNING
from conferral.domain import webhook_event
from conferral.domain.webhook_event import SignatureInvalid
from conferral.services import subscribing
from conferral.services.runtime import Caller, Runtime
from conferral.services.subscribing import NewEndpoint
from conferral.store.queries import deliveries

HOST = "127.0.0.1"
MOST_BODY_BYTES = 1_000_000  # an event has less than 20 KB
SOCKET_SECONDS = 10.0
FORWARD_SECONDS = 10.0  # less than the 15 s that the sender waits
_ACCEPTED, _REFUSED, _BAD_GATEWAY = 204, 401, 502
_HEADERS = ("content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature")


@dataclass(frozen=True)
class Arrival:
    """One request: what it carried, whether it was signed, what was answered."""

    headers: Mapping[str, str]
    body: bytes
    refusal: str | None
    answered: int
    forwarded: bool

    @property
    def event_id(self) -> str:
        """The event's id: the same at every repetition."""
        return self.headers.get("webhook-id", "")[:80]


class _Server(ThreadingHTTPServer):
    """A server that hands over what arrives, in the order of arrival; closing it waits for its answers."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, port: int, forward_to: str | None) -> None:
        super().__init__((HOST, port), _Request)
        self.path = f"/{secrets.token_urlsafe(12)}"
        self.secret = ""
        self.forward_to = forward_to
        self.arrivals: queue.Queue[Arrival] = queue.Queue()
        self._pool = urllib3.PoolManager(retries=False, timeout=FORWARD_SECONDS)

    @property
    def url(self) -> str:
        """Where events are to be posted."""
        return f"http://{HOST}:{self.server_address[1]}{self.path}"

    def judge(self, headers: Mapping[str, str], body: bytes) -> Arrival:
        """Verify a request, hand it on if that is wanted, and decide the answer."""
        refusal, status, forwarded = None, _ACCEPTED, False
        try:
            webhook_event.verify(self.secret, headers, body, now_seconds=time.time())
        except SignatureInvalid as invalid:
            refusal, status = str(invalid), _REFUSED
        if refusal is None and self.forward_to is not None:
            status, forwarded = self._forward(headers, body), True
        return Arrival(headers, body, refusal, status, forwarded)

    def _forward(self, headers: Mapping[str, str], body: bytes) -> int:
        try:
            answer = self._pool.request(
                "POST", str(self.forward_to), body=body, headers=dict(headers), redirect=False
            )
        except urllib3.exceptions.HTTPError:
            return _BAD_GATEWAY
        return int(answer.status)


class _Request(BaseHTTPRequestHandler):
    """Reads one request with limits; everything else is the server's."""

    timeout = SOCKET_SECONDS
    server: _Server

    def do_POST(self) -> None:
        """Take an event."""
        length = self.headers.get("Content-Length", "")
        if self.path != self.server.path:
            self.send_error(404)
            return
        if not length.isdigit() or int(length) > MOST_BODY_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        headers = {name: self.headers[name] for name in _HEADERS if name in self.headers}
        arrival = self.server.judge(headers, body)
        # Handed over before it is answered: the sender's next request cannot overtake this one.
        self.server.arrivals.put(arrival)
        self.send_response(arrival.answered)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: what arrives is shown by the command."""


@click.command("listen")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port (default: any free one).")
@click.option("--forward-to", metavar="URL", help="Hand every verified event on to your own program.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@click.option("--timeout", type=click.FloatRange(min=0.1), metavar="SECONDS", help="End after this time.")
@installation.in_mode
@installation.for_organisation
@installation.with_json
def listen(
    *, port: int, forward_to: str | None, count: int | None, timeout: float | None, live: bool,
    organisation: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Show events as they arrive, each with its signature checked; Ctrl-C ends it."""
    try:
        server = _Server(port, forward_to)
    except OSError as error:
        showing.remark(f"conferral: port {port} cannot be used: {error.strerror}")
        return UNAVAILABLE
    with installation.opened() as rt, _interruptible():
        caller = installation.caller_of(rt, organisation, live=live)
        tally = _Tally()
        with _registered(rt, caller, server) as endpoint, contextlib.suppress(KeyboardInterrupt):
            _announce(endpoint, caller, as_json=as_json)
            _listen(server, tally, count=count, timeout=timeout, as_json=as_json)
    if not as_json:
        number = len(tally.seen)
        showing.remark(f"{number} event{'' if number == 1 else 's'} verified, {tally.refused} refused")
    if tally.refused:
        return FAILED
    return STILL_RUNNING if count is not None and len(tally.seen) < count else 0


@dataclass
class _Tally:
    """What arrived so far: the ids that were verified, and how many requests were refused."""

    seen: set[str] = field(default_factory=set)
    refused: int = 0


def _listen(
    server: _Server, tally: _Tally, *, count: int | None, timeout: float | None, as_json: bool
) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    while count is None or len(tally.seen) < count:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            arrival = server.arrivals.get(timeout=left)
        except queue.Empty:
            return
        _show(arrival, is_repeated=arrival.event_id in tally.seen, as_json=as_json)
        if arrival.refusal is None:
            tally.seen.add(arrival.event_id)
        else:
            tally.refused += 1


@contextlib.contextmanager
def _registered(rt: Runtime, caller: Caller, server: _Server) -> Iterator[NewEndpoint]:
    """Serve and be known as an endpoint; known no more at the end."""
    with rt.database.transaction() as session:
        for row in deliveries.endpoints_of(session, caller.organisation_id):
            # A killed listener could not remove itself; its port is ours now, so it is gone.
            if row.temporary and row.state == "enabled" and row.url.startswith(_origin(server)):
                subscribing.remove(rt, session, caller, row.id)
        endpoint = subscribing.add(rt, session, caller, server.url, temporary=True)
    server.secret = endpoint.secret
    threading.Thread(target=server.serve_forever, name="listener", daemon=True).start()
    try:
        yield endpoint
    finally:
        with rt.database.transaction() as session:
            subscribing.remove(rt, session, caller, endpoint.id)
        server.shutdown()
        server.server_close()


def _origin(server: _Server) -> str:
    return server.url.removesuffix(server.path) + "/"


def _announce(endpoint: NewEndpoint, caller: Caller, *, as_json: bool) -> None:
    if as_json:
        showing.emit(
            {
                "event": "listening",
                "endpoint_id": endpoint.id,
                "url": endpoint.url,
                "secret": endpoint.secret,
                "mode": caller.mode,
            }
        )
        return
    showing.say(f"Listening on {endpoint.url} ({caller.mode} mode); Ctrl-C ends it.")
    showing.say(f"Secret {endpoint.secret}")


def _show(arrival: Arrival, *, is_repeated: bool, as_json: bool) -> None:
    event = _event(arrival.body)
    if as_json:
        showing.emit(
            {
                "event": "webhook", "webhook_id": arrival.event_id, "verified": arrival.refusal is None,
                "reason": arrival.refusal, "repeated": is_repeated, "answered": arrival.answered,
                "body": event,
            }
        )  # fmt: skip
        return
    at = f"{datetime.now(UTC):%H:%M:%S}"
    if arrival.refusal is not None:
        showing.say(f"{showing.painted('✗', showing.RED)} {at}  refused: {arrival.refusal}")
        return
    data = event.get("data", {})
    about = data.get("credential_id", "") if isinstance(data, dict) else ""
    marks = "  again" if is_repeated else ""
    handed = f"  forwarded, answered {arrival.answered}" if arrival.forwarded else ""
    showing.say(
        f"{showing.painted('✓', showing.GREEN)} {at}  {event.get('type', '?')}  {arrival.event_id}  {about}"
        f"  signature valid{marks}{handed}"
    )


def _event(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the listener as Ctrl-C does, so that it removes itself."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
