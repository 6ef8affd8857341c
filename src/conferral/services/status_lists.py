# SPDX-License-Identifier: Apache-2.0
"""Status lists: an index for every credential at admission, and the signed list that is served.

The list is a projection of rows: it is computed and signed anew, never read, changed and
written back. One coalesced run a list signs it, at most once a second, however much changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Final
from weakref import WeakKeyDictionary

from sqlalchemy.orm import Session

from conferral.domain import status_list, vc
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import BULK, promise
from conferral.reliable.runs import Run
from conferral.services import signing_keys
from conferral.services.runtime import Runtime
from conferral.store.engine import Database
from conferral.store.queries import status_lists
from conferral.store.records import Record

OPEN_TASK: Final = "tasks.issuance.open_status_list"
PUBLISH_TASK: Final = "tasks.issuance.publish_status_list"
OPEN_NEXT_AT: Final = 0.9  # the next list is ready before this one is full
SIGN_AGAIN_AFTER: Final = timedelta(days=1)
STALE_AFTER: Final = timedelta(hours=25)  # the daily signature did not come
BEHIND_AFTER: Final = timedelta(minutes=2)  # a change is signed within seconds
COMMITTED_WITHIN: Final = timedelta(seconds=15)  # the longest statement: see the store's engine
# Between two signatures of a list: whatever changes within it is one signature.
SPACING: Final = timedelta(seconds=1)
# A change of many leaves its lists alone until its last commit; should that never come, they wait no longer.
MANY_WITHIN: Final = timedelta(seconds=30)

CACHED_PERMUTATIONS: Final = 8  # 512 KiB each


def open_list(rt: Runtime, session: Session, organisation_id: str, mode: str, purpose: str) -> int:
    """Insert an empty list with a random order of indices; return its number. ~0.1 s of drawing."""
    number = status_lists.add(
        session,
        organisation_id=organisation_id,
        mode=mode,
        purpose=purpose,
        permutation=status_list.draw_permutation(SystemRandom()),
        next=0,
        size=status_list.LIST_LENGTH,
        version=0,
        created_at=rt.database.now(),
    )
    promise(session, PUBLISH_TASK, [str(number)], coalesce=_coalesce(number), priority=BULK)
    return number


def is_missing(session: Session, organisation_id: str, mode: str, purpose: str) -> bool:
    """Return whether there is no list to take an index of."""
    return status_lists.with_room(session, organisation_id, mode, purpose) is None


def allocate(
    rt: Runtime, session: Session, organisation_id: str, mode: str, purpose: str, *, count: int
) -> list[tuple[int, int]]:
    """Take `count` indices; return (list number, index) pairs, never given out before."""
    taken: list[tuple[int, int]] = []
    while len(taken) < count:
        found = status_lists.with_room(session, organisation_id, mode, purpose)
        if found is None:
            open_list(rt, session, organisation_id, mode, purpose)
            continue
        wanted = min(count - len(taken), found.size - found.next)
        first = status_lists.allocate(session, found.number, wanted)
        if first is None:
            continue  # somebody was faster; look again
        order = _permutation(rt, session, found.number)
        taken += [
            (found.number, status_list.index_at(order, position)) for position in range(first, first + wanted)
        ]
        _open_next(session, found, first + wanted, (organisation_id, mode, purpose))
    return taken


def _open_next(session: Session, found: Record, used: int, owner: tuple[str, str, str]) -> None:
    threshold = int(found.size * OPEN_NEXT_AT)
    if found.next < threshold <= used:
        promise(session, OPEN_TASK, list(owner), coalesce=f"status.open:{':'.join(owner)}", priority=BULK)


def open_next(rt: Runtime, run: Run, organisation_id: str, mode: str, purpose: str) -> None:
    """Open the list that follows one which is nearly full."""
    with rt.database.transaction() as session:
        open_list(rt, session, organisation_id, mode, purpose)
        run.settle(session)


def publish(rt: Runtime, run: Run, number: str) -> None:
    """Sign a list as its rows are now, and promise the next daily signature."""
    now = rt.database.now()
    with rt.database.snapshot() as session:
        row = status_lists.served(session, int(number))
        indices = status_lists.set_indices(session, int(number), row.purpose) if row else []
    if row is None:
        raise Permanent("not_found", f"there is no status list {number}")
    if (due := _not_before(now, row.signed_at)) > now:
        # It was signed while the promise of this run was made: what changed since goes with the next one.
        _put_off(rt, run, number, due)
        return
    content = _signed(rt, row, number, indices, now)
    crash_point("list.signed")
    with rt.database.transaction() as session:
        is_ours = status_lists.record_signed(
            session,
            int(number),
            row.version,
            signed=content,
            etag=hashlib.sha256(content).hexdigest(),
            signed_at=now,
        )
        run.settle(session, {"signed": is_ours, "set": len(indices)})
        # Whoever was faster may have read the rows before we did: then they are signed once more.
        again = now + (SIGN_AGAIN_AFTER if is_ours else SPACING)
        promise(session, PUBLISH_TASK, [number], coalesce=_coalesce(int(number)), due_at=again, priority=BULK)
        crash_point("list.before_commit")


def _put_off(rt: Runtime, run: Run, number: str, due_at: datetime) -> None:
    with rt.database.transaction() as session:
        run.settle(session, {"signed": False})
        promise(session, PUBLISH_TASK, [number], coalesce=_coalesce(int(number)), due_at=due_at)


def _not_before(now: datetime, signed_at: datetime | None) -> datetime:
    """Return when a list may be signed next; a signature from the future (a clock was set back) is no bar."""
    was_just_now = signed_at is not None and now - SPACING < signed_at <= now
    return signed_at + SPACING if signed_at is not None and was_just_now else now


def _signed(rt: Runtime, row: Record, number: str, indices: Iterable[int], now: datetime) -> bytes:
    issuer = signing_keys.issuer(rt, row.organisation_id, row.mode)
    document = status_list.build(
        url=rt.url(f"/status/{number}"),
        issuer_did=issuer.did,
        purpose=row.purpose,
        set_indices=indices,
        signed_at=now,
    )
    signed = vc.sign(document, sign=issuer.sign, verification_method=issuer.verification_method, created=now)
    return vc.stored_form(signed)


def changed(rt: Runtime, session: Session, *numbers: int) -> None:
    """Promise that lists are signed as soon as may be; call it last in the commit of the change."""
    now = rt.database.now()
    for number, signed_at in status_lists.signed_at(session, numbers):
        due = _not_before(now, signed_at)
        promise(session, PUBLISH_TASK, [str(number)], coalesce=_coalesce(number), due_at=due)


def changing(rt: Runtime, session: Session, *numbers: int) -> None:
    """Promise that lists are signed before long: more of the same change follows, and ends with `changed`."""
    due = rt.database.now() + MANY_WITHIN
    for number in sorted(set(numbers)):
        promise(session, PUBLISH_TASK, [str(number)], coalesce=_coalesce(number), due_at=due)


def catch_up(rt: Runtime, session: Session) -> int:
    """Promise that lists are signed which should have been; return how many. There should be none."""
    now = rt.database.now()
    stale = set(status_lists.overdue(session, now - STALE_AFTER))
    recent = status_lists.changed_between(session, now - STALE_AFTER, now - BEHIND_AFTER)
    for number, signed_at, changed_at in recent:
        # A change is dated before its commit: one that is hardly older may have been missed.
        if signed_at is not None and changed_at > signed_at - COMMITTED_WITHIN:
            stale.add(number)
    for number in sorted(stale):
        promise(session, PUBLISH_TASK, [str(number)], coalesce=_coalesce(number), priority=BULK)
    return len(stale)


def _coalesce(number: int) -> str:
    return f"status.publish:{number}"


def _permutation(rt: Runtime, session: Session, number: int) -> bytes:
    known = _remembered.setdefault(rt.database, {})
    cached = known.get(number)
    if cached is None:
        cached = status_lists.permutation(session, number)
        while len(known) >= CACHED_PERMUTATIONS:
            known.pop(next(iter(known)), None)
        known[number] = cached
    return cached


_remembered: WeakKeyDictionary[Database, dict[int, bytes]] = WeakKeyDictionary()
