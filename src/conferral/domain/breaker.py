# SPDX-License-Identifier: Apache-2.0
"""A breaker: after failures in a row a destination is left alone for a while, then probed once.

Pure: the state comes in and goes out; whoever owns the row writes it, and only on a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Limits:
    """When a breaker opens, and for how long: doubling from `first` to `longest` seconds."""

    failures: int
    first_seconds: float
    longest_seconds: float


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failures in a row, openings in a row, and until when the destination is left alone."""

    failures: int = 0
    opened: int = 0
    closed_until: datetime | None = None

    @property
    def is_healthy(self) -> bool:
        """Return whether nothing has failed lately."""
        return self.failures == 0 and self.opened == 0

    def after_failure(self, now: datetime, limits: Limits) -> Breaker:
        """Return the state after one more failure; a failed probe opens it again, for longer."""
        failures = self.failures + 1
        if self.opened == 0 and failures < limits.failures:
            return Breaker(failures, 0, None)
        seconds = min(limits.first_seconds * 2**self.opened, limits.longest_seconds)
        return Breaker(failures, self.opened + 1, now + timedelta(seconds=seconds))


HEALTHY = Breaker()
