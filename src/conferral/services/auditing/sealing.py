# SPDX-License-Identifier: Apache-2.0
"""Seal the audit trail: attempts and lines of the audit log that have no seal get one, a block at a time.

Never in the hot path: a chain is made one link after another, and no worker waits for it. Chosen is what is
unsealed, never a range of ids, because what commits late may have an early id. All history cannot be searched
every minute, so a pass looks at what ended since the last one, and at `LATE` before that: no transaction of
ours stays open for so long (a statement has 15 s, a lease 30 s). A pass costs the same at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from conferral.domain import audit_trail
from conferral.reliable.promises import BULK, promise
from conferral.reliable.runs import Run
from conferral.services.runtime import Runtime
from conferral.store.queries import trail
from conferral.store.records import Record

TASK: Final = "tasks.cleanup.seal_audit_trail"
AT_ONCE: Final = 1_000  # attempts, and lines, a block: a pass takes a tenth of a second
LATE: Final = timedelta(minutes=15)
LOOK_BACK: Final = timedelta(days=2)  # by the first pass of a day: a clock may have been wrong meanwhile


def seal(rt: Runtime, run: Run) -> None:
    """Seal what is unsealed, a block at most; promise the next one if there is more."""
    now = rt.database.now()
    with rt.database.still() as session:
        last = trail.last_block(session)
        since = _since(last, now)
        attempts = trail.unsealed_attempts(session, since, AT_ONCE)
        lines = trail.unsealed_lines(session, since, AT_ONCE)
    seals = _seals(attempts, lines)
    through = min(
        [now]
        + ([attempts[-1].finished_at] if len(attempts) == AT_ONCE else [])
        + ([lines[-1].created_at] if len(lines) == AT_ONCE else [])
    )
    with rt.database.transaction() as session:
        is_mine = not seals or trail.add_block(session, seals, **_block(last, seals, through, now))
        run.settle(session, {"sealed": len(seals) if is_mine else 0})
        if not is_mine or AT_ONCE in (len(attempts), len(lines)):
            promise(session, TASK, [], coalesce="audit.seal", priority=BULK)


def _since(last: Record | None, now: datetime) -> datetime | None:
    """Return from when on is looked at; never after now, whatever a clock once said."""
    if last is None:
        return None
    back = LATE if last.sealed_at.date() == now.date() else LOOK_BACK
    since: datetime = min(last.through, now) - back
    return since


def _seals(attempts: Sequence[Record], lines: Sequence[Record]) -> list[dict[str, Any]]:
    sealed = [(row.run_id, row.number, audit_trail.digest_of_attempt(row._asdict())) for row in attempts] + [
        (audit_trail.AUDIT_LOG, row.id, audit_trail.digest_of_line(row._asdict())) for row in lines
    ]
    return [
        {"run_id": run_id, "number": number, "position": position, "digest": digest}
        for position, (run_id, number, digest) in enumerate(sealed)
    ]


def _block(
    last: Record | None, seals: list[dict[str, Any]], through: datetime, now: datetime
) -> dict[str, Any]:
    """Return the next block, and give its number to its seals."""
    number = last.number + 1 if last is not None else 1
    previous = last.hash if last is not None else audit_trail.NOTHING_BEFORE
    for one in seals:
        one["block"] = number
    return {
        "number": number,
        "previous": previous,
        "hash": audit_trail.block_hash(previous, [one["digest"] for one in seals]),
        "rows": len(seals),
        "through": through,
        "sealed_at": now,
    }
