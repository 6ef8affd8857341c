# SPDX-License-Identifier: Apache-2.0
"""HTTP connections that go to checked addresses only and can be cut off at any moment.

urllib3 does the protocol; here stands what it must not decide: where a name leads, how long a
connection may idle, and that a deadline reaches into a read. What an answer means is
`webhook_client`'s affair. Which guard and which deadline apply travels in `current`, because
a pooled connection outlives the request it was opened for.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, ProxyError, SSLError

from conferral.adapters.address_guard import AddressGuard, Target
from conferral.adapters.deadlines import Watch
from conferral.reliable.crash_points import crash_point

CONNECT_SECONDS: Final = 3.0
"""A receiver that does not even accept within this is down."""
IDLE_SECONDS: Final = 30.0
"""Kept-alive connections are dropped after this: most servers have closed them by then."""
MAX_POOLS: Final = 64
"""Hosts with open connections at a time; as many as threads of a process, twice."""
CONNECTIONS_PER_HOST: Final = 4
"""As many requests as may be in flight to one endpoint from one process."""
MAX_ADDRESSES_TRIED: Final = 8
"""Every address of a name is checked; more than these are not worth the time."""

_SHORTEST_WAIT_SECONDS: Final = 0.001
"""A socket timeout of zero would mean "do not wait at all", which is another kind of error."""
_MAX_CAUSES: Final = 8
"""How deep an error is looked into for its cause."""
_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (NameResolutionError, "name"),
    (socket.gaierror, "name"),
    (SSLError, "tls"),
    (ssl.SSLError, "tls"),
    (ConnectTimeoutError, "connect_timeout"),
    (ConnectionRefusedError, "refused"),
    (ConnectionResetError, "reset"),
    (TimeoutError, "connect_timeout"),
    (ProxyError, "proxy"),
)


@dataclass(frozen=True)
class Exchange:
    """What a connection has to know of the request it carries."""

    guard: AddressGuard
    watch: Watch


current: contextvars.ContextVar[Exchange] = contextvars.ContextVar("conferral_http_exchange")
"""The request this thread is making; set it around every use of the pools."""


def build_pools(ca_file: str | None, proxy: str | None) -> urllib3.PoolManager:
    """Return the connections of one process; `ca_file` is trusted besides the system's certificates."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    options: dict[str, Any] = {
        "num_pools": MAX_POOLS,
        "maxsize": CONNECTIONS_PER_HOST,
        "ssl_context": context,
    }
    if proxy is None:
        pools = urllib3.PoolManager(**options)
    else:
        address = urllib3.util.parse_url(proxy)
        credentials = urllib3.make_headers(proxy_basic_auth=address.auth) if address.auth else None
        pools = urllib3.ProxyManager(proxy, proxy_headers=credentials, **options)
    pools.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pools


def drop_idle(pools: urllib3.PoolManager) -> None:
    """Close the connections nobody used for a while; those in use are not in their pool's queue."""
    for key in pools.pools.keys():  # noqa: SIM118 - this container refuses to be iterated
        pool = pools.pools.get(key)
        waiting = pool.pool if pool is not None else None
        idle = []
        with contextlib.suppress(queue.Empty):
            while waiting is not None:
                idle.append(waiting.get(block=False))
        for connection in reversed(idle):
            if connection is not None and not connection.is_connected:
                connection.close()
            with contextlib.suppress(queue.Full):
                assert waiting is not None  # noqa: S101 - something came out of it
                waiting.put(connection, block=False)


def reason_of(error: BaseException | None) -> str:
    """Name why a connection failed; library texts hold addresses and are never shown."""
    seen = 0
    while error is not None and seen < _MAX_CAUSES:
        for kind, reason in _KINDS:
            if isinstance(error, kind):
                return reason
        inner = next((each for each in error.args[::-1] if isinstance(each, BaseException)), None)
        error = getattr(error, "reason", None) or inner or error.__cause__ or error.__context__
        seen += 1
    return "lost"


class _GuardedHTTP(HTTPConnection):
    """A connection to a checked address that the watch of its request may shut down at any time."""

    target_scheme: ClassVar[str] = "http"
    used_at: float = 0.0

    def _new_conn(self) -> socket.socket:
        exchange = current.get()
        if self.proxy is not None:
            # The operator's own proxy; the address behind it was checked before.
            sock = super()._new_conn()
            exchange.watch.attach(sock)
            return sock
        target = Target(scheme=self.target_scheme, host=self._dns_host, port=self.port)
        return _connected(exchange, target, float(self.timeout or CONNECT_SECONDS))

    def request(self, *args: Any, **options: Any) -> None:
        """Send one request, on a connection that is watched also where it is used again."""
        if self.sock is None:
            self.connect()
        else:
            current.get().watch.attach(self.sock)
        crash_point("http.connected")
        super().request(*args, **options)
        self.used_at = time.monotonic()
        crash_point("http.sent")

    @property
    def is_connected(self) -> bool:
        """Whether the connection can carry another request; one that idled too long cannot."""
        return super().is_connected and time.monotonic() - self.used_at <= IDLE_SECONDS


class _GuardedHTTPS(_GuardedHTTP, HTTPSConnection):
    """The same, over TLS: server name and certificate stay those of the host, not of the address."""

    target_scheme: ClassVar[str] = "https"


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


def _connected(exchange: Exchange, target: Target, seconds: float) -> socket.socket:
    """Return a connection to the first checked address that accepts one within `seconds` in all."""
    addresses = exchange.guard.resolve(target)
    ends_at = time.monotonic() + seconds
    failure: OSError | None = None
    for address in addresses[:MAX_ADDRESSES_TRIED]:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            exchange.watch.attach(sock)
            sock.settimeout(max(_SHORTEST_WAIT_SECONDS, ends_at - time.monotonic()))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address.sockaddr)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or socket.gaierror(socket.EAI_NONAME, "the name has no address")
