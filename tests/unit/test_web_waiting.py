# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
import time

from conferral.web.waiting import Patience


def test_a_request_that_waits_is_answered_as_soon_as_it_is_enough() -> None:
    """Not at the end of its time."""
    looks = iter([1, 2, 3, 4])
    began = time.monotonic()
    assert Patience().watch(lambda: next(looks), lambda seen: seen == 3, 20) == 3
    assert time.monotonic() - began < 5


def test_a_request_waits_no_longer_than_it_asked() -> None:
    """The last look is the answer."""
    began = time.monotonic()
    assert Patience().watch(lambda: 1, lambda _: False, 0.3) == 1
    assert 0.3 <= time.monotonic() - began < 3


def test_beyond_the_places_everybody_is_answered_at_once() -> None:
    """Those who wait hold threads: the others keep theirs."""
    patience = Patience(places=1)
    inside, leave = threading.Event(), threading.Event()

    def look() -> bool:
        inside.set()
        return leave.is_set()

    holder = threading.Thread(target=lambda: patience.watch(look, bool, 20))
    holder.start()
    assert inside.wait(5)
    deadline = time.monotonic() + 5
    while patience._places._value and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(0.01)
    began = time.monotonic()
    assert patience.watch(lambda: 1, lambda _: False, 20) == 1
    assert time.monotonic() - began < 1
    leave.set()
    holder.join(5)
    assert not holder.is_alive()
