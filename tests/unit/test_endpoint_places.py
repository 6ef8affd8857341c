# SPDX-License-Identifier: Apache-2.0
"""Places of webhook requests: a slow endpoint delays itself only."""

from __future__ import annotations

import contextlib

import pytest

from conferral.reliable.errors import Snooze
from conferral.services.endpoint_places import (
    BACK_LATER_SECONDS,
    BACK_SOON_SECONDS,
    OF_ONE_ENDPOINT,
    SLOW_SECONDS,
    EndpointPlaces,
)


def test_one_endpoint_has_a_few_places_and_gets_them_back() -> None:
    """The fifth request waits; when one has ended, the next may go."""
    places = EndpointPlaces(32)
    with contextlib.ExitStack() as held:
        for _ in range(OF_ONE_ENDPOINT):
            held.enter_context(places.hold("a"))
        with pytest.raises(Snooze), places.hold("a"):
            pass
        with places.hold("b"):
            pass
    with places.hold("a"):
        pass


def test_the_last_half_is_for_endpoints_that_have_no_place() -> None:
    """Eight endpoints that hang cannot fill the pool: the ninth is served."""
    places = EndpointPlaces(32)
    with contextlib.ExitStack() as held:
        taken = 0
        for _ in range(OF_ONE_ENDPOINT):
            for endpoint in range(8):
                with contextlib.suppress(Snooze):
                    held.enter_context(places.hold(f"slow-{endpoint}"))
                    taken += 1
        assert taken == 16
        held.enter_context(places.hold("healthy"))


def test_who_is_turned_away_comes_back_sooner_when_the_endpoint_is_quick() -> None:
    """A busy endpoint is asked again soon; one whose requests take long, later."""
    now = [0.0]
    places = EndpointPlaces(32, clock=lambda: now[0])
    with contextlib.ExitStack() as held:
        for _ in range(OF_ONE_ENDPOINT):
            held.enter_context(places.hold("a"))
        with pytest.raises(Snooze) as soon, places.hold("a"):
            pass
        now[0] = SLOW_SECONDS + 0.1
        with pytest.raises(Snooze) as later, places.hold("a"):
            pass
    assert (soon.value.seconds, later.value.seconds) == (BACK_SOON_SECONDS, BACK_LATER_SECONDS)
