# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt: growing, capped, never predictable.

Without jitter, forty runs that failed together return together; that is a second outage.
The wait is a row (`due_at`), never a countdown in a broker or a worker's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

MAX_RETRY_AFTER_SECONDS = 24 * 3600.0  # a peer may ask for a pause, not for oblivion
SPREAD = 0.1  # of a floor: wide enough to part those that wait for the same one


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The attempts one task is given.

    Attributes:
        ceilings_seconds: upper bound of each delay; n ceilings allow n + 1 attempts.
        growing: draw each delay between the previous ceiling and its own, so that gaps
            grow visibly (mail, webhooks); otherwise full jitter between 0 and the ceiling.
        floor_seconds: the least delay, for peers that greylist.
    """

    ceilings_seconds: tuple[float, ...]
    growing: bool = False
    floor_seconds: float = 0.0

    @property
    def max_attempts(self) -> int:
        """Return how many attempts may be charged before the run is parked."""
        return len(self.ceilings_seconds) + 1


NEVER_RETRY = RetryPolicy(ceilings_seconds=())
DEFAULT = RetryPolicy(ceilings_seconds=(2.0, 8.0, 30.0, 120.0))


def delay(
    policy: RetryPolicy,
    spent: int,
    random: Random,
    *,
    retry_after_seconds: float | None = None,
    scale: float = 1.0,
) -> float | None:
    """Return the seconds to wait after `spent` attempts, or None when they are used up.

    A peer's `retry_after_seconds` is a floor, itself capped at one day; it is not scaled. What waits for a
    floor waits up to a tenth longer, each as chance will have it: forty mails that were greylisted together
    do not come back together.

    >>> delay(RetryPolicy((10.0, 20.0), growing=True), 2, Random(1)) > 10.0
    True
    >>> delay(RetryPolicy((10.0,)), 2, Random(1)) is None
    True
    """
    if spent < 1 or spent > len(policy.ceilings_seconds):
        return None
    ceiling = policy.ceilings_seconds[spent - 1]
    previous = policy.ceilings_seconds[spent - 2] if policy.growing and spent > 1 else 0.0
    drawn = random.uniform(previous, ceiling) * scale
    floor = max(policy.floor_seconds * scale, min(retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS))
    return drawn if drawn >= floor else floor * random.uniform(1.0, 1.0 + SPREAD)
