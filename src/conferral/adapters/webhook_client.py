# SPDX-License-Identifier: Apache-2.0
"""Post one signed webhook: one look-up, one connection to a checked address, one deadline.

It follows no redirect, uses no proxy of the environment, repeats nothing by itself and
reads no more of an answer than it keeps. What an answer means is decided in `_judged`.
The first bytes of an answer may hold personal data: they never become evidence.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from conferral.adapters import deadlines
from conferral.adapters.address_guard import AddressGuard, Target
from conferral.adapters.guarded_http import (
    CONNECT_SECONDS,
    IDLE_SECONDS,
    Exchange,
    build_pools,
    current,
    drop_idle,
    reason_of,
)
from conferral.domain.webhook_event import sign
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent, Retryable

TOTAL_SECONDS: Final = 15.0
"""For the whole request; the usual bound among senders of webhooks."""
MAX_READ_BYTES: Final = 16 * 1024
"""What is read of an answer: enough to leave the connection usable, never a download."""
MAX_SNIPPET_BYTES: Final = 2 * 1024
"""What is kept of an answer, for the person who has to find out why it failed."""
MAX_RETRY_AFTER_SECONDS: Final = 24 * 3600
"""A receiver may ask for a day of rest; what asks for more is a mistake."""
_REASONS: Final = {
    "name": "its name cannot be resolved",
    "tls": "no secure connection, check its certificate",
    "connect_timeout": "it does not accept connections",
    "refused": "it refuses connections",
    "reset": "it closed the connection without an answer",
    "proxy": "the proxy of CONFERRAL_WEBHOOK_PROXY did not connect to it",
    "lost": "the connection was lost before the answer was complete",
}
_KEPT_HEADERS: Final = ("content-type", "content-length", "retry-after", "location", "server", "date")
_MAX_HEADER_CHARACTERS: Final = 200
_THROTTLED: Final = frozenset({429, 502, 503, 504})
_GONE: Final = 410
_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True)
class Answer:
    """What a receiver answered."""

    status: int
    duration_ms: int
    snippet: str = field(repr=False)
    """The first 2 KiB of the body as text; kept beside the delivery only."""
    headers: Mapping[str, str]
    """A few harmless ones, by lower-case name."""

    def evidence(self) -> dict[str, Any]:
        """Return what is recorded with the attempt: never the body, and no header a receiver may echo in."""
        return {"status": self.status, "duration_ms": self.duration_ms}


class EndpointFailed(Retryable):
    """The receiver did not accept the webhook; the same bytes go out again later."""

    answer: Answer | None = None
    """What it answered, if it did."""


class EndpointGone(Permanent):
    """The receiver answered 410: it wants no webhooks any more."""

    answer: Answer | None = None


class WebhookClient:
    """The HTTP client of one process; its connections and its thread are made after a fork."""

    def __init__(
        self,
        guard: AddressGuard,
        *,
        ca_file: str | None = None,
        proxy: str | None = None,
        user_agent: str = "Conferral",
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._guard = guard
        self._ca_file = ca_file
        self._proxy = proxy
        self._user_agent = user_agent
        self._connect_seconds = connect_seconds
        self._total_seconds = total_seconds
        self._pools: tuple[int, urllib3.PoolManager] | None = None
        self._swept_at = 0.0

    def post(
        self, url: str, *, event_id: str, body: bytes, secrets: str | Sequence[str], now: datetime
    ) -> Answer:
        """Post the body, signed with every secret; `now` is aware and signed with it.

        Raises:
            Permanent: `endpoint_address_forbidden`; `endpoint_gone` (`EndpointGone`, with the answer).
            Retryable: `endpoint_error`, `endpoint_throttled` (with `retry_after_seconds`),
                `endpoint_unreachable`, `endpoint_timeout` (`EndpointFailed`, with the answer if any).
        """
        target = self._guard.check_url(url)
        seconds = int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": self._user_agent,
            "webhook-id": event_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": sign(secrets, event_id, seconds, body),
        }
        answer = self._exchanged(target, headers, body)
        crash_point("http.answered")
        return _judged(answer, now)

    def close(self) -> None:
        """Close every idle connection of this process; call it when no request is under way."""
        made, self._pools = self._pools, None
        if made is not None and made[0] == os.getpid():
            made[1].clear()

    def _exchanged(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answer:
        started = time.monotonic()
        with deadlines.within(self._total_seconds) as watch:
            token = current.set(Exchange(self._guard, watch))
            try:
                if self._proxy is not None:
                    self._guard.resolve(target)
                status, received, content = _read(self._sent(target, headers, body))
            except (HTTPError, OSError) as error:
                if watch.has_expired or watch.remaining() == 0:
                    raise _timed_out(self._total_seconds) from None
                raise _unreachable(error) from None
            finally:
                current.reset(token)
            if watch.has_expired:
                # An answer without a length simply ends where we cut it off.
                raise _timed_out(self._total_seconds)
        return Answer(
            status=status,
            duration_ms=round((time.monotonic() - started) * 1000),
            snippet=content[:MAX_SNIPPET_BYTES].decode("utf-8", errors="replace").replace("\x00", "\ufffd"),
            headers=received,
        )

    def _sent(self, target: Target, headers: Mapping[str, str], body: bytes) -> urllib3.BaseHTTPResponse:
        # The URL is put together from the checked parts: urllib3 must not read it differently than the guard.
        return self._process_pools().request(
            "POST",
            target.url,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=self._connect_seconds, read=self._total_seconds),
        )

    def _process_pools(self) -> urllib3.PoolManager:
        """Return this process's pools; two threads that make them at once cost one of them its work."""
        made = self._pools
        if made is None or made[0] != os.getpid():
            made = self._pools = (os.getpid(), build_pools(self._ca_file, self._proxy))
        if time.monotonic() - self._swept_at > IDLE_SECONDS:
            self._swept_at = time.monotonic()
            drop_idle(made[1])
        return made[1]


def _read(response: urllib3.BaseHTTPResponse) -> tuple[int, dict[str, str], bytes]:
    """Return status, some headers and at most 16 KiB; close the connection if there is more."""
    try:
        content = response.read(MAX_READ_BYTES + 1)
    except BaseException:
        response.close()
        raise
    if len(content) > MAX_READ_BYTES:
        response.close()
    response.release_conn()
    kept = {
        name: response.headers[name][:_MAX_HEADER_CHARACTERS]
        for name in _KEPT_HEADERS
        if name in response.headers
    }
    return response.status, kept, content[:MAX_READ_BYTES]


def _judged(answer: Answer, now: datetime) -> Answer:
    """Return an answer that says yes; raise what any other means."""
    if answer.status in _SUCCESS:
        return answer
    error: EndpointFailed | EndpointGone
    if answer.status == _GONE:
        error = EndpointGone(
            "endpoint_gone",
            "The endpoint answered 410: it wants no more webhooks.",
            evidence=answer.evidence(),
        )
    elif answer.status in _THROTTLED:
        error = EndpointFailed(
            "endpoint_throttled",
            f"The endpoint answered {answer.status}: it asks for fewer requests or a pause.",
            retry_after_seconds=_retry_after(answer.headers.get("retry-after", ""), now),
            evidence=answer.evidence(),
        )
    else:
        hint = " Redirects are not followed: enter the final address." if 300 <= answer.status < 400 else ""  # noqa: PLR2004 - the class of status codes
        error = EndpointFailed(
            "endpoint_error",
            f"The endpoint answered {answer.status}; only 2xx counts as received.{hint}",
            evidence=answer.evidence(),
        )
    error.answer = answer
    raise error


def _retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds a receiver asks for (RFC 9110 10.2.3), at most a day; None if it does not say."""
    if value.strip().isdecimal():
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds()
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)


def _timed_out(seconds: float) -> EndpointFailed:
    return EndpointFailed(
        "endpoint_timeout",
        f"The endpoint did not answer completely within {seconds:g} seconds.",
        evidence={"duration_ms": round(seconds * 1000)},
    )


def _unreachable(error: Exception) -> EndpointFailed:
    reason = reason_of(error)
    return EndpointFailed(
        "endpoint_unreachable",
        f"The endpoint could not be reached: {_REASONS[reason]}.",
        evidence={"reason": reason},
    )
