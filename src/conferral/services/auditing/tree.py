# SPDX-License-Identifier: Apache-2.0
"""A5 by log: every leaf once, the tree they make, its tiles, and every checkpoint that was ever signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from conferral.domain.audit import Deviation
from conferral.domain.audit_tree import Replay, judge_note
from conferral.domain.checkpoint import VerifierKey
from conferral.services.auditing.looking import Audit, Finding
from conferral.store.queries import auditing
from conferral.store.records import Record

LEAVES = 2_048  # a page: eight tiles


def examine(audit: Audit) -> Iterator[Finding]:
    """Replay every log up to the size it has now; what is below a size never changes again."""
    with audit.rt.database.snapshot() as session:
        logs = auditing.all_logs(session)
    for log in logs:
        yield from _replay(audit, log)
        audit.tally.log += log.size


def _replay(audit: Audit, log: Record) -> Iterator[Deviation]:
    subject = f"log:{log.log}"
    key = VerifierKey(log.origin, log.public_key)
    replay = Replay(log.log, _tile_reader(audit, log.log))
    share = 1.0 if audit.sample is None else min(1.0, audit.sample / max(1, log.size))
    while replay.size < log.size:
        begin, end = replay.size, min(replay.size + LEAVES, log.size)
        with audit.rt.database.snapshot() as session:
            found = auditing.leaves_between(session, log.log, begin, end)
            signed = auditing.checkpoints_between(session, log.log, begin, end)
        leaves = {row.leaf_index: row for row in found}
        checkpoints = {row.size: row for row in signed}
        for index in range(begin, end):
            leaf = leaves.get(index)
            yield from replay.feed(leaf.entry if leaf else None, leaf.credential_id if leaf else None)
            checkpoint = checkpoints.get(index + 1)
            if checkpoint is not None:
                yield from replay.judge_checkpoint(checkpoint)
                is_picked = audit.random.random() < share
                yield from judge_note(log.log, checkpoint, key, signature=is_picked)
        audit.tell(f"log {log.log}", end, log.size)
    yield from replay.gap(log.size)
    if not replay.root_is(log.root):
        yield Deviation("A5", subject, f"has another root than its {log.size} leaves")
    if log.size and log.signed != log.size:
        yield Deviation("A5", subject, f"has {log.size} leaves, and its newest checkpoint {log.signed}")


def _tile_reader(audit: Audit, log: str) -> Callable[[int, int], bytes]:
    def read(level: int, number: int) -> bytes:
        with audit.rt.database.snapshot() as session:
            row = auditing.tile(session, log, level, number)
        return row.data if row is not None else b""

    return read
