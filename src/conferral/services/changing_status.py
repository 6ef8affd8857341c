# SPDX-License-Identifier: Apache-2.0
"""Revoke, suspend, reinstate: one commit moves the row, tells everybody and has the status list signed anew.

The row is the truth and counts at once; the signed list is its projection and follows within a second.
A verb said twice changes nothing the second time and answers the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from conferral.domain import status_change
from conferral.domain.credential import ERASED
from conferral.domain.problems import FieldError, Problem
from conferral.domain.status_change import REINSTATE, REPLACED, SUPERSEDE, Verb
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Retryable
from conferral.services import emailing, notifying, status_lists
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import bookkeeping, deliveries, standings
from conferral.store.records import Record

MANY: Final = 500  # credentials a commit: a fraction of a second, also where there is one writer only


@dataclass(frozen=True, slots=True)
class Changed:
    """How a credential stands after a verb; `is_new` is false when it stood so before.

    Attributes:
        reason: why it is not in force; None when it is.
        run_ids: the runs that tell recipient and endpoints of this change.
    """

    credential_id: str
    state: str
    reason: str | None
    changed_at: datetime
    run_ids: tuple[str, ...]
    is_new: bool


@dataclass(frozen=True, slots=True)
class ChangedMany:
    """What became of a chunk: ids that changed, and why others did not."""

    changed: tuple[str, ...]
    unchanged: dict[str, str]


def change(
    rt: Runtime,
    session: Session,
    caller: Caller,
    verb: Verb,
    credential_id: str,
    *,
    reason: str | None = None,
) -> Changed:
    """Say a verb to one credential, in the caller's transaction.

    Raises:
        Problem: `validation_failed` for an unknown reason; `not_found`; `erased`; `state_conflict` with
            what can be done instead.
    """
    wanted = checked_reason(verb, reason)
    found = standings.locked(session, caller.organisation_id, caller.mode, [credential_id])
    if not found:
        raise Problem("not_found", f"there is no credential {credential_id[:40]}")
    row = found[0]
    if row.state == ERASED:
        raise Problem("erased", f"{credential_id} was erased; its bit in the status list is set")
    is_new = not _stands_so(verb, row)
    if is_new:
        refused = status_change.refusal(verb, row.state, row.purpose)
        if refused is not None:
            raise Problem("state_conflict", f"{credential_id}: {refused}")
        _apply(rt, session, caller, verb, [row], reason=wanted, group=None)
        status_lists.changed(rt, session, row.status_list_number)
        (row,) = standings.locked(session, caller.organisation_id, caller.mode, [credential_id])
    crash_point("status.before_commit")
    return Changed(
        credential_id, row.state, row.status_reason, row.status_changed_at,
        _told_by(session, verb, credential_id), is_new,
    )  # fmt: skip


def change_many(
    rt: Runtime, session: Session, caller: Caller, verb: Verb, credential_ids: Sequence[str],
    *, reason: str | None, group: str, is_last: bool,
) -> ChangedMany:  # fmt: skip
    """Say a verb to many credentials, `MANY` at most, in the caller's transaction.

    Those it cannot be said to are left alone and named. The lists are signed at once after the last chunk,
    and before long after the others: ten thousand revocations are one signature.

    Args:
        rt: the runtime.
        session: the caller's transaction.
        caller: on whose behalf.
        verb: what is said.
        credential_ids: to whom; of the caller's organisation and mode, or they are not found.
        reason: one of the codes; None for none in particular.
        group: the id of the change that these are part of (`chg_…`).
        is_last: whether this is the last chunk.
    """
    wanted = checked_reason(verb, reason)
    rows = standings.locked(session, caller.organisation_id, caller.mode, credential_ids)
    unchanged = dict.fromkeys(
        set(credential_ids) - {row.credential_id for row in rows}, "there is no such one"
    )
    able = []
    for row in rows:
        if _stands_so(verb, row):
            unchanged[row.credential_id] = f"it is {row.state} already"
        elif refused := status_change.refusal(verb, row.state, row.purpose):
            unchanged[row.credential_id] = refused
        else:
            able.append(row)
    _apply(rt, session, caller, verb, able, reason=wanted, group=group)
    numbers = {row.status_list_number for row in able}
    (status_lists.changed if is_last else status_lists.changing)(rt, session, *numbers)
    crash_point("status.before_commit")
    return ChangedMany(tuple(row.credential_id for row in able), unchanged)


def replace(rt: Runtime, session: Session, issued: Sequence[Record]) -> tuple[set[str], set[int]]:
    """Mark as superseded what newly issued credentials replace, in the commit that issues them.

    One that was revoked meanwhile stays revoked: a revocation is final.

    Returns:
        The successors that replaced something, and the lists to sign: pass these to `status_lists.changed`
        at the end of the commit.
    """
    by_old = {row.supersedes: row for row in issued if row.supersedes is not None}
    if not by_old:
        return set(), set()
    owner = next(iter(by_old.values()))
    done: set[str] = set()
    numbers: set[int] = set()
    for organisation_id in sorted({row.organisation_id for row in by_old.values()}):
        caller = Caller(organisation_id, owner.mode, "system", frozenset())
        rows = standings.locked(session, organisation_id, owner.mode, list(by_old))
        able = [row for row in rows if row.state in SUPERSEDE.sources]
        for row in able:
            new = by_old[row.credential_id].credential_id
            standings.move(session, [row.credential_id], SUPERSEDE.sources, superseded_by=new)
            done.add(new)
        _apply(rt, session, caller, SUPERSEDE, able, reason=REPLACED, group=None)
        numbers |= {row.status_list_number for row in able}
    return done, numbers


def checked_reason(verb: Verb, reason: str | None) -> str | None:
    """Return the code that is stored for a verb; a credential that is in force has no reason.

    Raises:
        Problem: `validation_failed` for a code that there is not.
    """
    if reason is not None and reason not in status_change.REASONS:
        known = ", ".join(status_change.REASONS)
        error = FieldError("#/reason", "field_invalid", f"expected one of {known}")
        raise Problem("validation_failed", f"there is no reason {reason[:40]!r}", errors=[error])
    if verb is REINSTATE:
        return None
    return reason or status_change.UNSPECIFIED


def _stands_so(verb: Verb, row: Record) -> bool:
    """Whether the verb was the last: an issued one was reinstated only if it ever changed."""
    return bool(row.state == verb.target and row.status_changed_at is not None)


def _apply(
    rt: Runtime, session: Session, caller: Caller, verb: Verb, rows: Sequence[Record],
    *, reason: str | None, group: str | None,
) -> None:  # fmt: skip
    """Move rows that are locked; record who did it, and promise what tells of it."""
    if not rows:
        return
    now = rt.database.now()
    ids = [row.credential_id for row in rows]
    moved = standings.move(
        session, ids, verb.sources, state=verb.target, status_reason=reason, status_changed_at=now
    )
    if len(moved) != len(ids):  # they are locked: somebody moves states without asking for their rows
        raise Retryable("internal", f"{len(ids) - len(moved)} credential(s) changed under the lock")
    crash_point("status.moved")
    bookkeeping.audit_all(
        session,
        [
            {
                "organisation_id": row.organisation_id,
                "actor": caller.actor,
                "action": verb.event_type,
                "subject": row.credential_id,
                "request_id": caller.request_id,
                "created_at": now,
            }
            for row in rows
        ],
    )
    if verb is not SUPERSEDE:  # of a replacement the recipient hears by the mail of the new one
        mailed = [row for row in rows if row.send_email]
        emailing.promise_all(rt, session, verb.email_kind, mailed, group_of=lambda _: group)
    notifying.announce(rt, session, verb.event_type, rows, state=verb.target, group_of=lambda _: group)


def _told_by(session: Session, verb: Verb, credential_id: str) -> tuple[str, ...]:
    """Return the runs of the newest e-mail and the newest event of a verb."""
    sent = deliveries.of_credential(session, credential_id)
    mails = [row for row in sent if row.channel == "email" and row.kind == verb.email_kind]
    hooks = [row for row in sent if row.channel == "webhook" and row.kind == verb.event_type]
    last = max((row.revision for row in mails), default=0)
    newest = max((row.event_id for row in hooks), default="")  # ids are sorted by time
    told = [row for row in mails if row.revision == last] + [row for row in hooks if row.event_id == newest]
    return tuple(row.run_id for row in told if row.run_id is not None)
