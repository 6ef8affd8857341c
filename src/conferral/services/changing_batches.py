# SPDX-License-Identifier: Apache-2.0
"""Revoke, suspend or reinstate a whole batch: a few hundred credentials a commit, runs that promise the next.

It can die anywhere and be repeated: a credential that changed already is left alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import status_change
from conferral.domain.problems import Problem
from conferral.domain.status_change import VERBS, Verb
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import BULK, promise
from conferral.reliable.runs import Run
from conferral.services import changing_status, status_lists
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import batches, bookkeeping, standings
from conferral.store.records import Record

TASK: Final = "tasks.issuance.change_batch"
CHUNKS_A_RUN: Final = 4  # two thousand credentials: the pool's hard limit is 25 s


@dataclass(frozen=True, slots=True)
class Preview:
    """How many of a batch a verb can be said to, and the states of the others."""

    affected: int
    others: dict[str, int]


def preview(session: Session, batch: Record, verb: Verb) -> Preview:
    """Count what a verb would change in a batch."""
    affected = 0
    others: Counter[str] = Counter()
    for state, purpose, count in standings.batch_counts(session, batch.id):
        if status_change.refusal(verb, state, purpose) is None:
            affected += count
        else:
            others[state] += count
    return Preview(affected, dict(others))


def named(session: Session, caller: Caller, batch_id: str) -> Record:
    """Return a batch of the caller's organisation and mode.

    Raises:
        Problem: `not_found`.
    """
    batch = batches.batch(session, caller.organisation_id, batch_id)
    if batch is None or batch.mode != caller.mode:
        raise Problem("not_found", f"there is no batch {batch_id[:40]} in {caller.mode} mode")
    return batch


def left(session: Session, batch_id: str, verb: Verb) -> int:
    """Return how many of a batch a verb could still be said to."""
    counts = standings.batch_counts(session, batch_id)
    return sum(row.number for row in counts if status_change.refusal(verb, row.state, row.purpose) is None)


def possible(session: Session, batch: Record) -> list[Verb]:
    """Return the verbs that would change something in a batch."""
    counts = standings.batch_counts(session, batch.id)
    return [
        verb
        for verb in VERBS.values()
        if any(status_change.refusal(verb, row.state, row.purpose) is None for row in counts)
    ]


def request(
    rt: Runtime, session: Session, caller: Caller, verb: Verb, batch_id: str, *, reason: str | None
) -> tuple[Preview, str | None]:
    """Promise to say a verb to every credential of a batch; return the counts and the run, if there is work.

    What is not issued yet is not touched: it will be issued, and is counted among the others.

    Raises:
        Problem: `not_found`; `validation_failed` for an unknown reason; `state_conflict` when none of the
            batch is suspendable.
    """
    changing_status.checked_reason(verb, reason)
    batch = named(session, caller, batch_id)
    counts = preview(session, batch, verb)
    if counts.affected == 0:
        if verb.needs is not None and not _has_purpose(session, batch, verb):
            raise Problem("state_conflict", f"{batch_id}: its template is not suspendable; it can be revoked")
        return counts, None
    now = rt.database.now()
    bookkeeping.audit(
        session, organisation_id=caller.organisation_id, actor=caller.actor, action=f"batch.{verb.target}",
        subject=batch_id, request_id=caller.request_id, created_at=now,
    )  # fmt: skip
    change_id = rt.new_id("chg")
    return counts, _promise(session, batch, [change_id, verb.name, reason or "", caller.actor], after=0)


def perform(rt: Runtime, run: Run, batch_id: str, *words: str) -> None:
    """Say the verb to the next credentials of a batch; promise the rest.

    Args:
        rt: the runtime.
        run: the run.
        batch_id: the batch.
        words: the change's id, the verb, the reason or an empty text, on whose behalf, and the row after
            which to go on.
    """
    change_id, name, reason, actor, after = words
    with rt.database.snapshot() as session:
        batch = batches.for_expanding(session, batch_id)
    if batch is None or name not in VERBS:
        raise Permanent("not_found", f"there is no batch {batch_id}, or nothing called {name}")
    caller = Caller(batch.organisation_id, batch.mode, actor, frozenset())
    last, changed = int(after), 0
    for _ in range(CHUNKS_A_RUN):
        with rt.database.snapshot() as session:
            rows = standings.batch_chunk(session, batch_id, last, changing_status.MANY)
        if not rows:
            break
        with rt.database.transaction() as session:
            done = changing_status.change_many(
                rt, session, caller, VERBS[name], [row.id for row in rows],
                reason=reason or None, group=change_id, is_last=False,
            )  # fmt: skip
        crash_point("status.chunk_committed")
        last, changed = rows[-1].batch_row, changed + len(done.changed)
    with rt.database.transaction() as session:
        is_done = not standings.batch_chunk(session, batch_id, last, 1)
        run.settle(session, {"changed": changed, "to_row": last})
        if is_done:
            status_lists.changed(rt, session, *standings.batch_lists(session, batch_id))
        else:
            _promise(session, batch, [change_id, name, reason, actor], after=last)


def _has_purpose(session: Session, batch: Record, verb: Verb) -> bool:
    return any(row.purpose == verb.needs for row in standings.batch_counts(session, batch.id))


def _promise(session: Session, batch: Record, words: list[Any], *, after: int) -> str:
    change_id = words[0]
    return promise(
        session,
        TASK,
        [batch.id, *words, str(after)],
        key=f"change:{change_id}:{after}",
        subject=batch.id,
        tenant=batch.organisation_id,
        priority=BULK,
        group_key=change_id,
    )
