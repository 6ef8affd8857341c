# SPDX-License-Identifier: Apache-2.0
"""Real processes that die at every named point of the source, at its first and at its second passage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from pathlib import Path

from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_points import points
from support.chaos_processes import until

FINAL_SECONDS = 60.0
"""G3: whatever point a process died at, everything is final by then."""
FIRED_SECONDS = 60.0
ROOT = Path(__file__).parents[2]
# What supervisors and pools say of a child that killed itself; the rows say the rest.
DIED = (
    r"exited with 'signal 9 \(SIGKILL\)'", "WorkerLostError", "Worker exited prematurely",
    r"Worker \(pid:\d+\) was sent SIGKILL",
)  # fmt: skip

# What issuing passes.
ISSUING = frozenset({
    "accept", "expand", "dispatch", "claimed", "pdf", "vc", "leaf", "log", "smtp", "http", "settle", "beat",
})  # fmt: skip
# What other verbs pass: where they are died at.
ELSEWHERE = {
    "key": "tests/contracts/test_signing_keys.py",
    "resign": "tests/contracts/test_signing_again.py",
    "status": "tests/contracts/test_status_verbs.py",
    "list": "tests/contracts/test_status_verbs.py",
}


def test_crash_points(house: House, long: bool, seed: int) -> None:
    """Wherever a process dies: 0 lost, 0 second identities, final within 60 s, repeats where unknowable."""
    if long:
        for nth in (1, 2):
            for (point,) in _rounds(alone=True):
                ledger = Ledger(house, f"crash_points {point} {nth}")
                _die_at(house, [point], nth)
                _end(house, ledger)
        return
    nth = random.Random(seed).choice((1, 2))
    ledger = Ledger(house, f"crash_points, passage {nth}")
    for together in _rounds(alone=False):
        _die_at(house, together, nth)
    _end(house, ledger)


def _end(house: House, ledger: Ledger) -> None:
    seconds = house.until_final(ledger.accepted, FINAL_SECONDS)
    ledger.finish(expected=DIED)
    print(f"  final        {seconds:.1f} s after the last death")  # noqa: T201


def _rounds(*, alone: bool) -> Iterator[list[str]]:
    """Yield the points one by one, or one of each room at a time: they die in different processes."""
    names = sorted(name for name in points() if _room(name) in ISSUING)
    if alone:
        yield from ([name] for name in names)
        return
    families = [list(group) for _, group in groupby(names, key=_room)]
    for together in zip_longest(*families):
        yield [name for name in together if name is not None]


def _room(point: str) -> str:
    return point.partition(".")[0]


def _die_at(house: House, together: Sequence[str], nth: int) -> None:
    """Arm these points, issue until a process died at each of them."""
    before = len(house.points.fired())
    if "beat.promised" in together:
        # A Beat that starts looks at the slot that is running: it passes the point at once.
        house.points.arm("beat.promised")
        house.processes.kill_main("beat")
    for point in together:
        if point != "beat.promised":
            house.points.arm(point, nth=nth)
    asked = [house.issue_batch(4), *house.issue(4, threads=2)]
    still = {*together}

    def fired() -> bool:
        still.difference_update(one.point for one in house.points.fired()[before:])
        if still and not house.unfinished(asked):
            asked[:] = [house.issue_batch(1), *house.issue(1)]
        return not still

    until(fired, FIRED_SECONDS, lambda: f"never passed: {sorted(still)}")


def test_every_point_of_the_source_is_died_at() -> None:
    """None is forgotten: issuing passes it here, or the test of its verb dies there."""
    forgotten = {
        point: files
        for point, files in points().items()
        if _room(point) not in ISSUING and f'"{_room(point)}.' not in _text(ELSEWHERE.get(_room(point)))
    }
    assert forgotten == {}, "add its room to ISSUING, or the test of its verb to ELSEWHERE"


def _text(path: str | None) -> str:
    return (ROOT / path).read_text(encoding="utf-8") if path else ""


def test_every_point_of_the_plan_is_in_the_source() -> None:
    """A point for every line where "what if we die here?" has an answer; none gets lost in a rewrite."""
    planned = """
        accept.before_commit accept.after_commit expand.chunk_committed dispatch.published claimed
        pdf.rendered pdf.written pdf.stored vc.signed vc.stored leaf.before_commit leaf.after_commit
        log.extended log.signed log.before_commit log.after_commit smtp.connected smtp.rcpt smtp.data
        smtp.dot smtp.accepted http.connected http.sent http.answered settle.before_commit
        settle.after_commit beat.promised
    """
    assert {*planned.split()} <= points().keys()
