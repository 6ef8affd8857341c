# SPDX-License-Identifier: Apache-2.0
"""Real processes that die at every named point of the source, at its first and at its second passage."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from pathlib import Path

from sqlalchemy import or_, select

from conferral.reliable.rescue import LOST_CODE
from conferral.reliable.tables import PENDING, RETRY, STARTED, runs
from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_points import points
from support.chaos_processes import until

FINAL_SECONDS = 60.0
"""G3: whatever point a process died at, everything is final by then."""
FIRED_SECONDS = 60.0
AGAIN_SECONDS = 2.0
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

IN_CHILDREN = frozenset({"claimed", "pdf", "vc", "leaf", "settle"})
ISSUE = "tasks.issuance.issue_credential"


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
    children = [name for name in names if _room(name) in IN_CHILDREN]
    # Two deaths of a pool child a round: a third one in a row of the same run would be poison.
    pairs = [children[start : start + 2] for start in range(0, len(children), 2)]
    others = [name for name in names if name not in children]
    families = [[[name] for name in group] for _, group in groupby(others, key=_room)]
    for together in zip_longest(pairs, *families, fillvalue=[]):
        yield [name for some in together for name in some]


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
    house.issue_batch(4)
    house.issue(4, threads=2)
    still, asked_at = {*together}, time.monotonic()

    def fired() -> bool:
        nonlocal asked_at
        still.difference_update(one.point for one in house.points.fired()[before:])
        if still and time.monotonic() - asked_at > AGAIN_SECONDS:
            # What a dead process held comes back later; somebody has to pass in the meantime.
            house.issue(1)
            house.issue_batch(1)
            asked_at = time.monotonic()
        return not still

    until(fired, FIRED_SECONDS, lambda: f"never passed: {sorted(still)}")
    # Who may meet its third death in the next round has to be through before.
    near = or_(runs.c.task == ISSUE, runs.c.spent > 1)
    lost = runs.c.state.in_((PENDING, RETRY, STARTED)), runs.c.error_code == LOST_CODE
    struck = select(runs.c.id).where(near, *lost)
    until(lambda: not house.rows(struck), FINAL_SECONDS)


def test_every_point_of_the_source_is_died_at() -> None:
    """None is forgotten: issuing passes its room here, or the tests of its verb die in its room."""
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "contracts").glob("test_*.py")]
    deaths = "\n".join(text for text in tests if "crash_at" in text)
    elsewhere = {point for point in points() if f'"{_room(point)}.' in deaths}
    forgotten = {point for point in points() if _room(point) not in ISSUING} - elsewhere
    assert not forgotten, "add the room to ISSUING, or a death to the contract tests of its verb"


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
