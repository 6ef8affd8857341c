# SPDX-License-Identifier: Apache-2.0
"""A10: a schedule fired each of its slots once, and left one out only while no Beat led.

That a Beat led is known by what it fired: if anything else was fired in the time in which a missing slot
could still have been, the gap is not explained.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from conferral.domain.audit import Deviation

SETTLED: Final = timedelta(seconds=30)
"""Who takes over leads within 15 s, looks every second, and commits."""
MAX_GRACE: Final = timedelta(hours=1)
"""An older slot is history: Beat fires it no more."""


@dataclass(frozen=True, slots=True)
class Firing:
    """One slot that was fired: when it was due, and when its run was promised."""

    slot: datetime
    at: datetime


def judge_slots(
    name: str,
    expected: Sequence[datetime],
    fired: Sequence[Firing],
    others: Sequence[datetime],
    now: datetime,
) -> Iterator[Deviation]:
    """Compare what a schedule names with what was fired.

    Args:
        name: the schedule's.
        expected: its slots until now, ascending, beginning with the first one that it fired.
        fired: what was fired of it, by slot, ascending.
        others: when any other schedule was fired, ascending.
        now: the end of the span that is judged.
    """
    slots = {one.slot for one in fired}
    named = set(expected)
    for slot, following in zip(expected, [*expected[1:], now], strict=True):
        between = [one for one in fired if slot < one.slot < following and one.slot not in named]
        # One alone between two that were fired is one too many; several are another schedule's.
        if len(between) == 1 and slot in slots and following in slots:
            yield _found(name, f"fired at {_shown(between[0].slot)}, which it does not name")
        if slot not in slots and _led(slot, min(following, slot + MAX_GRACE), others):
            yield _found(name, f"did not fire at {_shown(slot)}, though a Beat led")


def _led(slot: datetime, until: datetime, others: Sequence[datetime]) -> bool:
    """Whether somebody fired something while this slot was due and those who look had time to see it."""
    place = bisect_left(others, slot + SETTLED)
    return place < len(others) and others[place] < until


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _found(name: str, text: str) -> Deviation:
    return Deviation("A10", f"schedule {name}", text, key=name)
