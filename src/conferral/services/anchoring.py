# SPDX-License-Identifier: Apache-2.0
"""The sequencer: give leaves their places in the log, sign its checkpoint, issue what is in it.

One turn is one commit: indices, tiles, checkpoint, `issued`, the woken runs, and the promises
of every e-mail and webhook that follows. A turn costs the same for one leaf as for hundreds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.adapters import signer
from conferral.domain import checkpoint, merkle
from conferral.reliable import runs
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import LeaseLost, Permanent, Snooze
from conferral.reliable.promises import promise
from conferral.reliable.runs import Run
from conferral.services import changing_status, emailing, notifying, status_lists
from conferral.services.runtime import Runtime
from conferral.store.queries import credentials, log
from conferral.store.records import Record

TASK: Final = "tasks.anchoring.sequence"
LOGS: Final = {"live": "/log", "test": "/test-log"}
HALTED_SECONDS: Final = 60.0


def append(rt: Runtime, session: Session, work: Record, entry: bytes) -> None:
    """Append a credential's leaf; the sequencer gives it its index."""
    log.append_leaf(
        session,
        log=work.mode,
        credential_id=work.id,
        revision=work.revision,
        entry=entry,
        now=rt.database.now(),
    )


def promise_turn(session: Session, name: str) -> None:
    """Promise that the log takes a turn; the last statement of its commit."""
    promise(session, TASK, [name], coalesce=f"log.sequence:{name}", subject=f"log:{name}")


def sequence(rt: Runtime, run: Run, name: str) -> None:
    """Take one turn of a log: everything that waits, up to the batch size, in one commit."""
    _ensure_log(rt, name)
    _linger(rt, name)
    with rt.database.transaction() as session:
        current = log.locked(session, name)
        if current is None or current.halted is not None:
            reason = current.halted if current is not None else "missing"
            raise Snooze("log_halted", f"log {name} is halted: {reason}", seconds=HALTED_SECONDS)
        waiting = log.unsequenced(session, name, rt.log_batch)
        lists: set[int] = set()
        if waiting:
            _extend(rt, session, current, waiting)
            # A document of other software has no credential: it gets its place, and nobody is told.
            lists = _issue(rt, session, [row for row in waiting if row.credential_id is not None])
        run.settle(session, {"leaves": len(waiting)})
        if len(waiting) == rt.log_batch:
            promise_turn(session, name)
        status_lists.changed(rt, session, *lists)
        crash_point("log.before_commit")
    crash_point("log.after_commit")


def _linger(rt: Runtime, name: str) -> None:
    """Wait until the last checkpoint has its least age: loaded, a turn takes what has gathered."""
    with rt.database.snapshot() as session:
        current = log.log(session, name)
    if current is None or current.signed_at is None:
        return
    age = (rt.database.now() - current.signed_at).total_seconds()
    if 0 <= age < rt.linger_seconds:
        time.sleep(rt.linger_seconds - age)


def _extend(rt: Runtime, session: Session, current: Record, waiting: Sequence[Record]) -> None:
    name = current.log
    entries = [row.entry for row in waiting]
    appended = merkle.append(log.tile_reader(session, name), current.size, entries)
    log.give_indices(session, [row.id for row in waiting], current.size)
    log.write_tiles(session, name, appended.tiles)
    crash_point("log.extended")
    note = _sign(rt, current, appended.size, appended.root)
    crash_point("log.signed")
    now = rt.database.now()
    if not log.grow(session, name, from_size=current.size, size=appended.size, root=appended.root, now=now):
        raise LeaseLost(f"log {name} grew meanwhile")
    log.add_checkpoint(session, log=name, size=appended.size, root=appended.root, note=note, created_at=now)


def _sign(rt: Runtime, current: Record, size: int, root: bytes) -> str:
    opened = rt.need_keyring().signer(f"log:{current.log}", "deployment", current.sealed_private)
    note = checkpoint.sign_checkpoint(current.origin, size, root, opened.sign, public_key=current.public_key)
    checkpoint.verify(note, [checkpoint.VerifierKey(current.origin, current.public_key)])
    return note


def _issue(rt: Runtime, session: Session, waiting: Sequence[Record]) -> set[int]:
    """Issue what is in the log now, and retire what it replaces; return the status lists to sign."""
    issued_ids = credentials.record_issued(session, [row.credential_id for row in waiting], rt.database.now())
    issued = [row for row in waiting if row.credential_id in issued_ids]
    results: dict[str, Any] = {
        row.run_id: {"status": "issued", "credential_id": row.credential_id}
        for row in issued
        if row.run_id is not None
    }
    runs.wake(session, results)
    replacing, lists = changing_status.replace(rt, session, issued)
    mailed = [row for row in issued if row.send_email]
    for kind, is_second in (("issued", False), ("superseded", True)):
        told = [row for row in mailed if (row.credential_id in replacing) is is_second]
        emailing.promise_all(rt, session, kind, told)
    notifying.announce(rt, session, "credential.issued", issued, state="issued")
    return lists


def _ensure_log(rt: Runtime, name: str) -> None:
    """Create the log before its first leaf is sequenced; its origin is frozen then."""
    with rt.database.snapshot() as session:
        if log.log(session, name) is not None:
            return
    if name not in LOGS:
        raise Permanent("not_found", f"there is no log {name}")
    private, public = signer.generate_key()
    sealed = rt.need_keyring().seal(f"log:{name}", "deployment", private)
    with rt.database.transaction() as session:
        log.add_log(
            session,
            log=name,
            origin=rt.log_origin.removesuffix("/log") + LOGS[name],
            public_key=public,
            sealed_private=sealed,
            size=0,
            root=merkle.EMPTY_ROOT,
            created_at=rt.database.now(),
        )


def proof_of(session: Session, credential_id: str) -> str | None:
    """Return a credential's C2SP tlog-proof against the newest checkpoint; None before it is in one."""
    leaf = log.leaf_of(session, credential_id)
    if leaf is None or leaf.leaf_index is None:
        return None
    newest = log.newest_checkpoint(session, leaf.log)
    if newest is None or newest.size <= leaf.leaf_index:
        return None
    hashes = merkle.inclusion_proof(leaf.leaf_index, newest.size, log.tile_reader(session, leaf.log))
    return checkpoint.tlog_proof(leaf.leaf_index, hashes, newest.note)


def verifier_key(session: Session, name: str) -> checkpoint.VerifierKey | None:
    """Return the key that a log's checkpoints are checked with."""
    current = log.log(session, name)
    return checkpoint.VerifierKey(current.origin, current.public_key) if current else None
