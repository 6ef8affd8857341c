# SPDX-License-Identifier: Apache-2.0
"""A bound on a whole network effect: one thread a process that shuts sockets down when their time is up.

A timeout bounds one read. A peer that sends a byte now and then holds a thread for hours
within any timeout, so the effect as a whole gets a deadline, kept by this thread.
It only ever shuts a connection down: what that means is decided by whoever waits on it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

_IDLE_SECONDS: Final = 60.0
"""How long the thread sleeps when nothing is watched; a new deadline wakes it at once."""


class Watch:
    """One effect and its deadline."""

    def __init__(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds
        self.has_expired = False
        self._is_over = False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    def remaining(self) -> float:
        """Return the seconds that are left, never less than zero."""
        return max(0.0, self.ends_at - time.monotonic())

    def attach(self, connected: socket.socket) -> None:
        """Name the connection to shut down; it is shut down at once if the time is up already.

        The watch keeps a handle of its own: TLS and `http.client` replace or close the caller's
        while the connection is still being read.
        """
        handle = socket.fromfd(connected.fileno(), connected.family, connected.type)
        with self._lock:
            previous, self._handle = self._handle, handle
            is_late = self.has_expired
        if previous is not None:
            previous.close()
        if is_late:
            _shut_down(handle)

    def end(self) -> None:
        """Say that the effect is over; from here on its connection is left alone."""
        with self._lock:
            self._is_over = True
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def expire(self) -> None:
        """Shut the connection down, unless the effect is over."""
        with self._lock:
            if self._is_over:
                return
            self.has_expired = True
            if self._handle is not None:
                _shut_down(self._handle)


class _Watchdog:
    """The deadlines of one process and the thread that keeps them; it starts with the first of them."""

    def __init__(self) -> None:
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget everything; in a forked child there is neither our thread nor a reliable lock."""
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Watch]] = []
        self._thread: threading.Thread | None = None

    def add(self, watch: Watch) -> None:
        """Keep the deadline of a watch."""
        with self._changed:
            heapq.heappush(self._heap, (watch.ends_at, next(self._order), watch))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is watch:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                wait = self._heap[0][0] - time.monotonic() if self._heap else _IDLE_SECONDS
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                watch = heapq.heappop(self._heap)[2]
            watch.expire()


_watchdog: Final = _Watchdog()
os.register_at_fork(after_in_child=_watchdog.start_afresh)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[Watch]:
    """Watch what happens inside: the connection given to `Watch.attach` is shut down after `seconds`."""
    watch = Watch(seconds)
    _watchdog.add(watch)
    try:
        yield watch
    finally:
        watch.end()


def _shut_down(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)
