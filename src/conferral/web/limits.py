# SPDX-License-Identifier: Apache-2.0
"""Rate limits: counted in Redis for all processes, or in this one while Redis is away.

A limit protects neighbours; it is never a reason to fail. Whatever goes wrong while counting,
the request is answered.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = logging.getLogger(__name__)

REDIS_SECONDS: Final = 0.1  # a request waits no longer than this to be counted
QUIET_SECONDS: Final = 5.0  # after a failure Redis is not asked for so long
MOST_COUNTERS: Final = 10_000  # of one process; beyond it the oldest window is forgotten early


@dataclass(frozen=True, slots=True)
class Policy:
    """So many requests in so many seconds."""

    name: str
    quota: int
    window_seconds: int = 60


WRITE: Final = Policy("write", 600)
READ: Final = Policy("read", 3_000)
VERIFY: Final = Policy("verify", 60)
LOGIN: Final = Policy("login", 10)


@dataclass(frozen=True, slots=True)
class Taken:
    """What is left after this request was counted."""

    policy: Policy
    remaining: int
    resets_in: int

    @property
    def is_allowed(self) -> bool:
        """Whether this request is within the quota."""
        return self.remaining >= 0

    def headers(self) -> dict[str, str]:
        """Return the RateLimit fields (draft-ietf-httpapi-ratelimit-headers-10)."""
        policy = self.policy
        return {
            "RateLimit-Policy": f'"{policy.name}";q={policy.quota};w={policy.window_seconds}',
            "RateLimit": f'"{policy.name}";r={max(0, self.remaining)};t={self.resets_in}',
        }


class Limiter:
    """Counts requests by policy and by who asks (a key's id, a client's address).

    Args:
        redis_url: where all processes count together; empty: each counts alone.
        clock: seconds since the epoch; windows begin at multiples of their length.
    """

    def __init__(self, redis_url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = client(redis_url) if redis_url.startswith(("redis", "unix")) else None
        self._clock = clock
        self._quiet_until = 0.0
        self._counts: dict[tuple[str, str, int], int] = {}
        self._lock = threading.Lock()

    def take(self, policy: Policy, who: str) -> Taken:
        """Count one request and say what is left."""
        now = self._clock()
        window = int(now // policy.window_seconds)
        count = self._count(policy, hashlib.sha256(who.encode()).hexdigest()[:32], window)
        ends = (window + 1) * policy.window_seconds
        return Taken(policy, policy.quota - count, max(1, round(ends - now)))

    def _count(self, policy: Policy, who: str, window: int) -> int:
        if self._redis is not None and time.monotonic() >= self._quiet_until:
            try:
                return self._count_together(self._redis, policy, f"{who}:{window}")
            except (RedisError, OSError) as error:
                self._quiet_until = time.monotonic() + QUIET_SECONDS
                log.warning("rate_limits_count_alone", extra={"code": type(error).__name__})
        return self._count_alone((policy.name, who, window))

    def _count_together(self, redis: Redis, policy: Policy, key: str) -> int:
        name = f"conferral:rate:{policy.name}:{key}"
        with redis.pipeline(transaction=False) as pipeline:
            pipeline.incr(name)
            pipeline.expire(name, 2 * policy.window_seconds)
            return int(pipeline.execute()[0])

    def _count_alone(self, key: tuple[str, str, int]) -> int:
        with self._lock:
            if key not in self._counts and len(self._counts) >= MOST_COUNTERS:
                self._forget(key[2])
            self._counts[key] = self._counts.get(key, 0) + 1
            return self._counts[key]

    def _forget(self, window: int) -> None:
        current = {key: count for key, count in self._counts.items() if key[2] == window}
        self._counts = current if len(current) < MOST_COUNTERS else {}


def client(url: str) -> Redis:
    """Return a client that gives up at once: whoever asks has better things to do."""
    return Redis.from_url(
        url,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
