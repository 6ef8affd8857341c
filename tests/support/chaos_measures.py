# SPDX-License-Identifier: Apache-2.0
"""How fast the product comes back: what the rows of runs and attempts say about kills and pauses."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import select

from conferral.reliable.rescue import POISON_AFTER
from conferral.reliable.tables import attempts, runs
from support.chaos_house import House, in_parts
from support.chaos_processes import Harm


def resumed(house: House, harms: Sequence[Harm]) -> list[float]:
    """Return, for every attempt that died in one of these processes, the seconds until the next began.

    The third loss in a row is left out: that run is parked as poison, and waits for a person.
    """
    killed = {str(harm.pid): harm.began for harm in harms}
    rows = house.rows(select(attempts).order_by(attempts.c.run_id, attempts.c.number))
    found = []
    in_a_row = 0
    for lost, again in pairwise(rows):
        in_a_row = in_a_row + 1 if lost.outcome == "lost" else 0
        if in_a_row == POISON_AFTER or again.run_id != lost.run_id:
            in_a_row = 0
            continue
        at = killed.get((lost.owner or "//").split("/")[-2])
        if lost.outcome != "lost" or at is None or again.started_at is None:
            continue
        found.append(again.started_at.timestamp() - at)
    return found


def stillness(house: House, ids: Sequence[str], moments: Sequence[float]) -> float:
    """Return the longest time after one of these moments in which a run that waited did not move.

    A run moves when an attempt begins or ends, or when it is final itself; a run that is due later by its
    own retry or is not yet promised does not wait.
    """
    worst = 0.0
    for part in in_parts(ids):
        columns = (runs.c.id, runs.c.created_at, runs.c.finished_at)
        mine = {row.id: row for row in house.rows(select(*columns).where(runs.c.subject.in_(part)))}
        moved: dict[str, list[float]] = {run_id: [] for run_id in mine}
        for names in in_parts(list(mine)):
            for row in house.rows(select(attempts).where(attempts.c.run_id.in_(names))):
                moved[row.run_id] += [_seconds(row.started_at), _seconds(row.finished_at)]
        for run_id, row in mine.items():
            ends = [*moved[run_id], _seconds(row.finished_at)]
            for moment in moments:
                if _seconds(row.created_at) < moment < _seconds(row.finished_at):
                    worst = max(worst, min(end for end in ends if end > moment) - moment)
    return worst


def first_effect(house: House, after: float) -> float:
    """Return when a peer saw, or an attempt finished, something after a moment; seconds since the epoch."""
    seen = [line["at"] for peer in (house.mails, house.hooks) for line in peer.seen() if line["at"] > after]
    ended = select(attempts.c.finished_at).where(
        attempts.c.finished_at > datetime.fromtimestamp(after, UTC), attempts.c.outcome == "success"
    )
    return min([*seen, *(_seconds(row.finished_at) for row in house.rows(ended))], default=float("inf"))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share lies.

    >>> percentile([1.0, 2.0, 3.0], 0.5)
    2.0
    """
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def spread(values: Sequence[float]) -> str:
    """Return p50, p99 and the longest, as a ledger prints them."""
    if not values:
        return "none"
    p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
    return f"{len(values)} times: p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(values):.2f} s"


@contextlib.contextmanager
def load(house: House, *, threads: int = 2, pause: float = 0.2, **fields: Any) -> Iterator[None]:
    """Issue one credential after another in the background, until the end of the block."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            house.client.issue(1, threads=1, **fields)
            ended.wait(pause)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        going = [pool.submit(go_on) for _ in range(threads)]
        try:
            yield
        finally:
            ended.set()
            for one in going:
                one.result()


def _seconds(moment: datetime | None) -> float:
    return float("inf") if moment is None else moment.timestamp()
