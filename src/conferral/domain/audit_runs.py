# SPDX-License-Identifier: Apache-2.0
"""A8 and A9: a run's attempts are all there, each ended, within the budget, and none began too early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from conferral.domain.audit import Deviation

CLAIM_TOLERANCE: Final = timedelta(milliseconds=251)
"""A claim accepts what is due within 250 ms by its own clock, and records that clock's time."""
CLOCKS: Final = timedelta(milliseconds=500)
"""Two hosts' measurements of one clock may differ by so much."""
POISON_AFTER: Final = 3  # losses in a row end a run, unless it died in company and says when it goes on

_SUCCESS, _LOST = "success", "lost"
_CHARGED: Final = frozenset({"success", "retry", "ambiguous", "failure"})
_MAY_END: Final = {
    "SUCCESS": frozenset({"success"}),
    "WAITING": frozenset({"success"}),
    "FAILURE": frozenset({"failure", "lost", "fenced"}),
    "RETRY": frozenset({"retry", "ambiguous", "snoozed", "lost", "fenced"}),
}
"""How the last attempt ended, by the state of its run; other states say nothing of it."""


def judge_history(run: Any, attempts: Sequence[Any], *, limit: int | None) -> Iterator[Deviation]:
    """A8: attempts 1 to n without a gap, one after the other, the last one as the run's state says.

    Args:
        run: a row of `runs`.
        attempts: its rows of `attempts` in order.
        limit: how many attempts the task's policy gives; None when it is not known.
    """
    begun = run.attempt - run.snoozes
    ended = begun - 1 if run.state == "STARTED" else begun
    numbers = [one.number for one in attempts]
    if numbers != list(range(1, ended + 1)):
        yield _found("A8", run, f"{_gap(numbers, ended)} in its history of {ended} attempts")
        return
    for earlier, later in pairwise(attempts):
        if later.started_at is not None and later.started_at < earlier.finished_at - CLOCKS:
            yield _found("A8", run, f"attempt {later.number} began before attempt {earlier.number} ended")
    if attempts and not _is_merged(run) and not (run.state == "RETRY" and run.snoozes):
        last = attempts[-1].outcome
        if last not in _MAY_END.get(run.state, {last}):
            yield _found("A8", run, f"is {run.state}, and its last attempt ended as {last}")
    if run.state == "SUCCESS" and not attempts and not _is_merged(run):
        yield _found("A8", run, "is SUCCESS without an attempt")
    most = max((len(charged) for charged in _lives(attempts)), default=0)
    if limit is not None and most > limit:
        yield _found("A8", run, f"was tried {most} times; {limit} are allowed")


def ends_followed(attempts: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return (end, next) for each attempt that ended a run for good and is not the last one."""
    found = []
    losses = 0
    for earlier, later in pairwise(attempts):
        losses = losses + 1 if earlier.outcome == _LOST else 0
        is_poison = losses >= POISON_AFTER and earlier.next_due_at is None
        if earlier.outcome in (_SUCCESS, "failure") or is_poison:
            found.append((earlier, later))
            losses = 0
    return found


def judge_ends(run: Any, attempts: Sequence[Any], replays: Sequence[datetime]) -> Iterator[Deviation]:
    """A8: after a permanent end only a person's recorded replay makes another attempt.

    Args:
        run: a row of `runs`.
        attempts: its rows of `attempts` in order.
        replays: when the audit log says that somebody replayed it.
    """
    for end, following in ends_followed(attempts):
        begun = following.started_at or following.finished_at
        if not any(end.finished_at - CLOCKS <= at <= begun + CLOCKS for at in replays):
            text = (
                f"attempt {following.number} followed attempt {end.number}, which was final ({end.outcome})"
            )
            yield _found("A8", run, f"{text}; nobody replayed it")


def judge_due(run: Any, attempts: Sequence[Any]) -> Iterator[Deviation]:
    """A9: no attempt began before the time that the one before it set, a peer's Retry-After included."""
    for earlier, later in pairwise(attempts):
        due_at, began = earlier.next_due_at, later.started_at
        if due_at is not None and began is not None and began < due_at - CLAIM_TOLERANCE:
            early = (due_at - began).total_seconds()
            yield _found("A9", run, f"attempt {later.number} began {early:.1f} s before it was due")


def _lives(attempts: Sequence[Any]) -> Iterator[list[Any]]:
    """Split a history into the stretches between its ends: each has a budget of its own."""
    ends = {end.number for end, _ in ends_followed(attempts)}
    life: list[Any] = []
    for one in attempts:
        if one.outcome in _CHARGED:
            life.append(one)
        if one.number in ends:
            yield life
            life = []
    yield life


def _gap(numbers: Sequence[int], ended: int) -> str:
    missing = sorted(set(range(1, ended + 1)) - set(numbers))
    if missing:
        return f"attempt {missing[0]} is missing"
    return f"attempt {max(numbers)} is too many"


def _is_merged(run: Any) -> bool:
    return isinstance(run.result, dict) and "merged_into" in run.result


def _found(check: str, run: Any, text: str) -> Deviation:
    return Deviation(check, f"run {run.id}", f"({run.task}) {text}", key=run.id)
