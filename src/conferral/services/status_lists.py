# SPDX-License-Identifier: Apache-2.0
"""Status lists: an index for every credential at admission, and the signed list that is served.

The list is a projection of rows: it is computed and signed anew, never read, changed and
written back.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from random import SystemRandom
from typing import Final

from sqlalchemy.orm import Session

from conferral.domain import status_list, vc
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import BULK, promise
from conferral.reliable.runs import Run
from conferral.services import signing_keys
from conferral.services.runtime import Runtime
from conferral.store.queries import status_lists
from conferral.store.records import Record

OPEN_TASK: Final = "tasks.issuance.open_status_list"
PUBLISH_TASK: Final = "tasks.issuance.publish_status_list"
OPEN_NEXT_AT: Final = 0.9  # the next list is ready before this one is full
SIGN_AGAIN_AFTER: Final = timedelta(days=1)
PUBLISH_DELAY: Final = timedelta(seconds=1)  # ten thousand revocations are one signature

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
        order = _permutation(session, found.number)
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
    issuer = signing_keys.issuer(rt, row.organisation_id, row.mode)
    document = status_list.build(
        url=rt.url(f"/status/{number}"),
        issuer_did=issuer.did,
        purpose=row.purpose,
        set_indices=indices,
        signed_at=now,
    )
    signed = vc.sign(document, sign=issuer.sign, verification_method=issuer.verification_method, created=now)
    content = vc.stored_form(signed)
    with rt.database.transaction() as session:
        status_lists.record_signed(
            session,
            int(number),
            row.version,
            signed=content,
            etag=hashlib.sha256(content).hexdigest(),
            signed_at=now,
        )
        run.settle(session)
        again = now + SIGN_AGAIN_AFTER
        promise(session, PUBLISH_TASK, [number], coalesce=_coalesce(int(number)), due_at=again, priority=BULK)


def changed(rt: Runtime, session: Session, number: int) -> None:
    """Promise that a list is signed again soon; call it last in the commit of the change."""
    soon = rt.database.now() + PUBLISH_DELAY
    promise(session, PUBLISH_TASK, [str(number)], coalesce=_coalesce(number), due_at=soon)


def _coalesce(number: int) -> str:
    return f"status.publish:{number}"


def _permutation(session: Session, number: int) -> bytes:
    cached = _remembered.get(number)
    if cached is None:
        cached = status_lists.permutation(session, number)
        while len(_remembered) >= CACHED_PERMUTATIONS:
            _remembered.pop(next(iter(_remembered)), None)
        _remembered[number] = cached
    return cached


_remembered: dict[int, bytes] = {}
