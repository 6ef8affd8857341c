# SPDX-License-Identifier: Apache-2.0
"""A12: the sealed trail was not changed: the chain of blocks, each block's seals, each seal's row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from conferral.domain import audit_trail
from conferral.domain.audit import Deviation, Remark
from conferral.reliable.tables import runs
from conferral.services.auditing import sealing
from conferral.services.auditing.looking import PAGE, Audit, Finding
from conferral.store import tables
from conferral.store.queries import trail
from conferral.store.records import Record

SEALS = 4_000  # a page, when blocks are full


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at every block and seal; then at what should have been sealed and is not."""
    with audit.rt.database.snapshot() as session:
        last = trail.last_block(session)
    if last is None:
        yield Remark("A12", "nothing was sealed yet")
        return
    yield from _chain(audit, last.number)
    yield from _passed_over(audit, last.through - sealing.LOOK_BACK)


def _chain(audit: Audit, last: int) -> Iterator[Deviation]:
    """Follow the chain to the block that was the last one when this began."""
    previous, number = audit_trail.NOTHING_BEFORE, 0
    while number < last:
        with audit.rt.database.still() as session:
            blocks = _page(trail.blocks_after(session, number, PAGE))
            seals = _by_block(trail.seals_of(session, number, blocks[-1].number)) if blocks else {}
        if not blocks:
            yield Deviation("A12", f"block {number + 1}", f"is missing; the chain had {last} blocks")
            return
        for block in blocks:
            yield from _judge_block(block, number + 1, previous, seals.get(block.number, []))
            previous, number = block.hash, block.number
        audit.tell("blocks", number, last)


def _page(blocks: Sequence[Record]) -> list[Record]:
    """Return so many blocks that their seals are a page, one at least."""
    page: list[Record] = []
    for block in blocks:
        if page and sum(one.rows for one in page) + block.rows > SEALS:
            break
        page.append(block)
    return page


def _by_block(seals: Sequence[Record]) -> Mapping[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for seal in seals:
        found.setdefault(seal.block, []).append(seal)
    return found


def _judge_block(
    block: Record, expected: int, previous: bytes, seals: Sequence[Record]
) -> Iterator[Deviation]:
    subject = f"block {block.number}"
    if block.number != expected:
        yield Deviation("A12", f"block {expected}", f"is missing before block {block.number}")
    elif block.previous != previous:
        yield Deviation("A12", subject, "does not continue the block before it")
    if len(seals) != block.rows:
        yield Deviation("A12", subject, f"has {len(seals)} seals; it was made of {block.rows}")
    elif audit_trail.block_hash(block.previous, [one.digest for one in seals]) != block.hash:
        yield Deviation("A12", subject, "has another hash than its seals")
    for seal in seals:
        yield from _judge_seal(seal)


def _judge_seal(seal: Record) -> Iterator[Deviation]:
    is_line = seal.sealed_run == audit_trail.AUDIT_LOG
    row = _row(seal, "line_" if is_line else "attempt_")
    subject = (
        f"audit_log {seal.sealed_number}"
        if is_line
        else f"run {seal.sealed_run} attempt {seal.sealed_number}"
    )
    if row["id" if is_line else "run_id"] is None:
        if seal.forgotten_at is None:
            yield Deviation("A12", subject, f"was removed after block {seal.block} sealed it")
        return
    digest = audit_trail.digest_of_line(row) if is_line else audit_trail.digest_of_attempt(row)
    if digest != seal.digest:
        yield Deviation("A12", subject, f"was changed after block {seal.block} sealed it")


def _row(seal: Record, prefix: str) -> dict[str, Any]:
    named = seal._asdict().items()
    return {name.removeprefix(prefix): value for name, value in named if name.startswith(prefix)}


def _passed_over(audit: Audit, before: datetime) -> Iterator[Deviation]:
    """Yield what ended so long ago that every pass has looked at it, and no block sealed."""

    def judge_attempts(run_ids: Sequence[str]) -> Iterator[Deviation]:
        with audit.rt.database.snapshot() as session:
            rows = trail.never_sealed(session, run_ids, before)
        for row in rows:
            subject = f"run {row.run_id} attempt {row.number}"
            yield Deviation("A12", subject, "was never sealed", key=row.run_id)

    def judge_lines(ids: Sequence[int | str]) -> Iterator[Deviation]:
        with audit.rt.database.snapshot() as session:
            numbers = trail.never_sealed_lines(session, [int(one) for one in ids], before)
        for number in numbers:
            yield Deviation("A12", f"audit_log {number}", "was never sealed", key=str(number))

    yield from audit.through("seals", runs.c.id, judge_attempts)
    yield from audit.through("audit log", tables.audit_log.c.id, judge_lines)
