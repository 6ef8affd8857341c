# SPDX-License-Identifier: Apache-2.0
"""How many webhook requests of one process may be under way: in all, and to one endpoint.

An endpoint that does not answer holds a thread for the whole deadline. So one endpoint has a few
places, and the last half of the pool is kept for endpoints that have none: eight that hang delay
themselves, and the ninth is told at once.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from conferral.reliable.errors import Snooze

OF_ONE_ENDPOINT: Final = 4
SLOW_SECONDS: Final = 1.0  # a request that takes longer says that more of them would only wait
BACK_SOON_SECONDS: Final = 0.5
BACK_LATER_SECONDS: Final = 5.0


@dataclass
class EndpointPlaces:
    """The places of one process; made once per process, shared by its threads.

    Attributes:
        slots: the threads of the pool.
    """

    slots: int
    clock: Callable[[], float] = time.monotonic
    _taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def hold(self, endpoint_id: str) -> Iterator[None]:
        """Hold a place for one request.

        Raises:
            Snooze: `endpoint_busy`; soon when the endpoint answers quickly, later when it does not.
        """
        now = self.clock()
        with self._lock:
            mine = self._taken[endpoint_id]
            if len(mine) >= OF_ONE_ENDPOINT or (mine and self._is_half_full()):
                is_slow = now - min(mine) > SLOW_SECONDS
                seconds = BACK_LATER_SECONDS if is_slow else BACK_SOON_SECONDS
                raise Snooze("endpoint_busy", f"endpoint {endpoint_id} is busy", seconds=seconds)
            mine.append(now)
        try:
            yield
        finally:
            with self._lock:
                mine.remove(now)
                if not mine:
                    self._taken.pop(endpoint_id, None)

    def _is_half_full(self) -> bool:
        return 2 * sum(map(len, self._taken.values())) >= self.slots
