# SPDX-License-Identifier: Apache-2.0
"""Replace an issuer's signing key: rotate it, because it is old; withdraw it, because somebody else has it.

Whoever asks (API, command line) holds no master key: asking promises an interactive run of the issuance
pool, which makes the new key and destroys the old one's private half in one commit. So there is one new key
or none, whatever dies. A rotated key stays published for ever; a withdrawn one leaves the DID document, and
what it signed and is still in force is signed again (`resigning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import vc
from conferral.domain.problems import FieldError, Problem
from conferral.reliable import dead_letters, status
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import INTERACTIVE, promise
from conferral.reliable.runs import Run
from conferral.reliable.tables import FAILURE, REVOKED
from conferral.services import resigning, signing_keys, status_lists
from conferral.services.runtime import Caller, Runtime
from conferral.services.signing_keys import KnownKey
from conferral.store.queries import bookkeeping, issuers
from conferral.store.records import Record

ROTATE_TASK: Final = "tasks.issuance.rotate_signing_key"
WITHDRAW_TASK: Final = "tasks.issuance.withdraw_signing_key"


@dataclass(frozen=True, slots=True)
class Requested:
    """A promised change of keys: the run to look at, and the key it replaces."""

    run_id: str
    organisation_id: str
    key: KnownKey


def request_rotation(rt: Runtime, session: Session, caller: Caller) -> Requested:
    """Promise that the caller's current key is replaced; asking again for the same key is the same run.

    Raises:
        Problem: `did_key_fixed`: the issuer is a did:key; `state_conflict`: it has no key yet.
    """
    key = _replaceable(session, caller, None)
    run_id = _promise(session, caller, ROTATE_TASK, [key.id])
    _audit(rt, session, caller, "signing_key.rotation_requested", key.id)
    return Requested(run_id, caller.organisation_id, key)


def request_withdrawal(
    rt: Runtime, session: Session, caller: Caller, number: int, compromised_at: datetime
) -> Requested:
    """Promise that a compromised key is withdrawn; asking again is the same run.

    Args:
        rt: the runtime.
        session: the caller's transaction.
        caller: whose key.
        number: of the key, current or retired.
        compromised_at: aware; since when somebody else may have signed with it.

    Raises:
        Problem: `did_key_fixed`; `not_found`; `state_conflict`: it was withdrawn with another date;
            `validation_failed`: the date is in the future.
    """
    if compromised_at > rt.database.now():
        detail = "compromised_at is in the future: say since when others may have had the key"
        error = FieldError("#/compromised_at", "date_invalid", detail)
        raise Problem("validation_failed", detail, errors=[error])
    key = _replaceable(session, caller, number)
    if key.compromised_at is not None and key.compromised_at != compromised_at:
        since = vc.timestamp(key.compromised_at)
        raise Problem("state_conflict", f"k{number} was withdrawn already, as compromised since {since}")
    run_id = _promise(session, caller, WITHDRAW_TASK, [key.id, compromised_at.isoformat()])
    _audit(rt, session, caller, "signing_key.withdrawal_requested", key.id)
    return Requested(run_id, caller.organisation_id, key)


def moment_of(text: str) -> datetime:
    """Read since when a key is compromised: a day (its first moment, UTC) or an RFC 3339 time with its zone.

    Raises:
        Problem: `validation_failed` with `date_invalid`.
    """
    try:
        is_day = len(text) == len("YYYY-MM-DD")
        moment = vc.first_moment(date.fromisoformat(text)) if is_day else datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        detail = "write a day (YYYY-MM-DD) or a time with its zone (YYYY-MM-DDTHH:MM:SSZ)"
        error = FieldError("#/compromised_at", "date_invalid", detail)
        raise Problem("validation_failed", detail, errors=[error])
    return moment.astimezone(UTC)


def rotate(rt: Runtime, run: Run, key_id: str) -> None:
    """Make a new key current, and destroy the private half of the one it follows.

    A repetition finds the work done and makes no second key.
    """
    old = _stored(rt, key_id)
    made = None
    if old.retired_at is None:
        # Opened first: a worker with a wrong master key must not replace a key that the others can open.
        rt.need_keyring().signer(old.id, old.organisation_id, old.sealed_private)
        made = signing_keys.make_key(rt, old.organisation_id)
    crash_point("key.made")
    with rt.database.transaction() as session:
        now = rt.database.now()
        if made is not None and issuers.retire_key(session, old.id, now):
            _succeed(session, old, made, now)
        run.settle(session, _result(session, old))
        crash_point("key.before_commit")
    crash_point("key.after_commit")


def withdraw(rt: Runtime, run: Run, key_id: str, compromised_at: str) -> None:
    """Take a compromised key out of the DID document, and promise what follows from it.

    One commit: the key withdrawn and destroyed, its successor if it was current, a new signature of every
    status list, and the run that signs the credentials again.
    """
    old = _stored(rt, key_id)
    made = signing_keys.make_key(rt, old.organisation_id) if old.retired_at is None else None
    crash_point("key.made")
    with rt.database.transaction() as session:
        now = rt.database.now()
        issuers.withdraw_key(session, old.id, now, datetime.fromisoformat(compromised_at))
        if made is not None and issuers.current_key(session, old.organisation_id, old.mode) is None:
            _succeed(session, old, made, now)
        run.settle(session, _result(session, old))
        # Coalescing promises come last, and in one order.
        for listed in issuers.status_list_numbers(session, old.organisation_id, old.mode):
            status_lists.changed(rt, session, listed)
        resigning.promise_run(session, old.organisation_id, old.mode)
        crash_point("key.before_commit")
    crash_point("key.after_commit")


def _replaceable(session: Session, caller: Caller, number: int | None) -> KnownKey:
    """Return a key of the caller, the current one where none is numbered, if its issuer may change keys."""
    keys = signing_keys.keys_of(session, caller.organisation_id, caller.mode)
    if not keys:
        raise Problem("state_conflict", "there is no signing key yet; the first signature makes it")
    if keys[0].verification_method.startswith("did:key:"):
        raise Problem("did_key_fixed", _why_fixed(caller.mode))
    for key in keys:
        if key.number == number or (number is None and key.retired_at is None):
            return key
    raise Problem("not_found", f"there is no signing key k{number}; see the list of signing keys")


def _why_fixed(mode: str) -> str:
    if mode == "test":
        return (
            "test mode always signs with a did:key, which is its own key and cannot change; "
            "nothing of value hangs on it. Keys of live mode can be rotated"
        )
    return (
        "this issuer is a did:key: its name is its key, so another key would be another issuer. Set "
        "CONFERRAL_PUBLIC_URL to an https address with a host name and issue from a new organisation, "
        "which is named by did:web; if the key was stolen, revoke what it signed"
    )


def _promise(session: Session, caller: Caller, task: str, args: list[str]) -> str:
    key_id = args[0]
    run_id = promise(
        session, task, args, key=f"{task.rpartition('.')[2]}:{key_id}", subject=key_id,
        tenant=caller.organisation_id, priority=INTERACTIVE,
    )  # fmt: skip
    asked = status.status_of(session, run_id)
    if asked is not None and asked.state in (FAILURE, REVOKED):
        dead_letters.revive(session, run_id)  # asked again after it was given up: the same run tries again
    return run_id


def _stored(rt: Runtime, key_id: str) -> Record:
    with rt.database.snapshot() as session:
        row = issuers.key(session, key_id)
    if row is None:
        raise Permanent("not_found", f"there is no signing key {key_id}")
    return row


def _succeed(session: Session, old: Record, made: signing_keys.FreshKey, now: datetime) -> None:
    newest = issuers.every_key(session, old.organisation_id, old.mode)[-1]
    number = newest.number + 1
    signing_keys.add_key(session, old.organisation_id, old.mode, number, made=made, now=now)


def _result(session: Session, old: Record) -> dict[str, Any]:
    keys = signing_keys.keys_of(session, old.organisation_id, old.mode)
    current = next(key for key in keys if key.state == "current")
    replaced = next(key for key in keys if key.id == old.id)
    return {
        "current": current.verification_method,
        "replaced": replaced.verification_method,
        "state": replaced.state,
    }


def _audit(rt: Runtime, session: Session, caller: Caller, action: str, subject: str) -> None:
    bookkeeping.audit(
        session, organisation_id=caller.organisation_id, actor=caller.actor, action=action, subject=subject,
        request_id=caller.request_id, created_at=rt.database.now(),
    )  # fmt: skip
