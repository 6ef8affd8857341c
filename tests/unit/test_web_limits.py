# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from conferral.web.limits import MOST_COUNTERS, Limiter, Policy

TWO = Policy("two", 2, window_seconds=60)


class Clock:
    """Seconds that stand until they are moved."""

    def __init__(self) -> None:
        self.now = 1_000_020.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_quota_is_used_up_and_comes_back_with_the_next_window() -> None:
    """Two are allowed, the third is not, a minute later all is fresh."""
    clock = Clock()
    limiter = Limiter("", clock=clock)
    assert [limiter.take(TWO, "a").is_allowed for _ in range(3)] == [True, True, False]
    clock.now += 60
    assert limiter.take(TWO, "a").is_allowed


def test_nobody_uses_up_the_quota_of_another() -> None:
    """Counters are kept by policy and by who asks."""
    limiter = Limiter("", clock=Clock())
    for _ in range(3):
        limiter.take(TWO, "a")
    assert limiter.take(TWO, "b").is_allowed
    assert limiter.take(Policy("other", 2), "a").is_allowed


def test_the_fields_say_quota_rest_and_reset() -> None:
    """The syntax of draft-ietf-httpapi-ratelimit-headers-10."""
    limiter = Limiter("", clock=Clock())
    assert limiter.take(TWO, "a").headers() == {
        "RateLimit-Policy": '"two";q=2;w=60',
        "RateLimit": '"two";r=1;t=60',
    }


def test_memory_stays_small_when_many_ask_once() -> None:
    """A flood of addresses must not become a flood of counters."""
    limiter = Limiter("", clock=Clock())
    for number in range(MOST_COUNTERS + 10):
        limiter.take(TWO, str(number))
    assert len(limiter._counts) <= MOST_COUNTERS


def test_counting_goes_on_alone_when_redis_is_away() -> None:
    """A limit is never a reason to fail, nor to stop limiting."""
    limiter = Limiter("redis://127.0.0.1:1/0", clock=Clock())
    assert [limiter.take(TWO, "a").is_allowed for _ in range(3)] == [True, True, False]
