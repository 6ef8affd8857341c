# SPDX-License-Identifier: Apache-2.0
"""Long polls: a few requests may wait for a state, everybody else is answered at once.

A request that waits holds a thread of the web server. So only a quarter of them may, and none
of them holds a database connection while it sleeps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

WAITERS: Final = 2  # a quarter of the eight threads of a web worker (gunicorn_config)
LONGEST_SECONDS: Final = 25
LOOK_SECONDS: Final = 0.1  # an idle system issues in 0.15 s: a longer pause would double it

Seen = TypeVar("Seen")


class Patience:
    """The places of one process in which a request may wait."""

    def __init__(self, places: int = WAITERS) -> None:
        self._places = threading.BoundedSemaphore(places)

    def watch(self, look: Callable[[], Seen], is_enough: Callable[[Seen], bool], seconds: float) -> Seen:
        """Look until it is enough or the time is over; without a free place, look once.

        Args:
            look: reads the present state; opens and closes its own database session.
            is_enough: whether the caller wants to know this at once.
            seconds: how long to go on looking.
        """
        seen = look()
        if seconds <= 0 or is_enough(seen) or not self._places.acquire(blocking=False):
            return seen
        try:
            deadline = time.monotonic() + min(seconds, LONGEST_SECONDS)
            while not is_enough(seen) and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
                seen = look()
        finally:
            self._places.release()
        return seen
