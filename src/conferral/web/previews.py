# SPDX-License-Identifier: Apache-2.0
"""Pictures of certificates, kept in memory: one renderer a process, and never a queue before it.

Nothing is written to disk, so an erased person leaves no picture behind.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from conferral.domain.problems import Problem
from conferral.services import previewing
from conferral.services.runtime import Runtime

MOST_BYTES: Final = 16 * 1024 * 1024  # some 80 pictures of 200 KB
MOST_WAITING: Final = 2  # threads that may wait for the renderer; a picture takes 0.2 s


class Previews:
    """The newest pictures, by the digest of their PDF."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def get(self, rt: Runtime, token: str) -> bytes | None:
        """Return the picture of a public token, None when there is nothing to show.

        Raises:
            Problem: `temporary_reduced_capacity` when too many wait for the renderer.
        """
        key = previewing.key_of(rt, token)
        if key is None:
            return None
        with self._lock:
            found = self._pictures.get(key)
            if found is not None:
                self._pictures.move_to_end(key)
                return found
        if not self._places.acquire(blocking=False):
            raise Problem("temporary_reduced_capacity", "too many pictures are being drawn; come back soon")
        try:
            drawn = previewing.draw(rt, token)
        finally:
            self._places.release()
        self._keep(key, drawn)
        return drawn

    def _keep(self, key: str, picture: bytes) -> None:
        with self._lock:
            self._pictures[key] = picture
            while sum(map(len, self._pictures.values())) > MOST_BYTES:
                self._pictures.popitem(last=False)
