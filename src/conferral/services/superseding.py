# SPDX-License-Identifier: Apache-2.0
"""Supersede a credential: a corrected one is issued first, and the commit that issues it retires the old one.

So the recipient is never without a credential, and nobody ever sees both in force. Which one it replaces
is fixed when the successor is admitted; what happens then is in `changing_status.replace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from conferral.domain import status_change
from conferral.domain.credential import ERASED, QUEUED
from conferral.domain.problems import Problem
from conferral.domain.status_change import SUPERSEDE
from conferral.reliable.crash_points import crash_point
from conferral.services import admission, issuing
from conferral.services.admission import Admitted, Wanted
from conferral.services.issuing import Accepted
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import bookkeeping, credentials, standings
from conferral.store.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the corrected credential says differently; None and absent fields stay as they are.

    Attributes:
        fields: replaced one by one; an empty text removes a field.
        expires_on: an empty text removes the end.
        external_id: of the corrected one; the old one keeps its own.
        template: id or name of another template.
    """

    recipient_name: str | None = None
    recipient_email: str | None = None
    locale: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    issued_on: str | None = None
    expires_on: str | None = None
    external_id: str | None = None
    template: str | None = None


def request(rt: Runtime, session: Session, caller: Caller, credential_id: str, changes: Changes) -> Accepted:
    """Admit the corrected credential and promise its issuing, in the caller's transaction.

    The same correction again is the same successor.

    Raises:
        Problem: `not_found`, `erased`; `validation_failed` with every wrong value, or when nothing would
            differ; `state_conflict` when it is not in force, or another correction is on its way;
            `external_id_conflict`.
    """
    # Locked: who asks at the same time sees our successor, or we theirs.
    found = standings.locked(session, caller.organisation_id, caller.mode, [credential_id])
    old = credentials.work(session, credential_id) if found else None
    if old is None:
        raise Problem("not_found", f"there is no credential {credential_id[:40]}")
    if old.state == ERASED:
        raise Problem("erased", f"{credential_id} was erased; issue a new one")
    template = admission.find_template(session, caller.organisation_id, changes.template or old.template_id)
    checked = admission.check(rt, template.design, _wanted(old, changes))
    if not isinstance(checked, Admitted):
        raise Problem("validation_failed", f"{len(checked)} value(s) are not valid", errors=checked)
    digest = checked.content_digest(template.version_id)
    earlier = standings.successor(session, credential_id)
    if earlier is not None:
        return _again(earlier, credential_id, digest)
    refused = status_change.refusal(SUPERSEDE, old.state, old.status_purpose)
    if refused is not None:
        raise Problem("state_conflict", f"{credential_id}: {refused}")
    if _is_same(old, checked, template):
        raise Problem("validation_failed", "nothing would differ; say what is to be corrected")
    new_id, run_id = _admit(rt, session, caller, template, checked, supersedes=credential_id)
    crash_point("accept.before_commit")
    return Accepted(new_id, run_id, QUEUED, is_new=True)


def _wanted(old: Record, changes: Changes) -> Wanted:
    expires_on = old.expires_on.isoformat() if old.expires_on else None
    return Wanted(
        template=old.template_id,
        recipient_name=old.recipient_name if changes.recipient_name is None else changes.recipient_name,
        recipient_email=old.recipient_email if changes.recipient_email is None else changes.recipient_email,
        locale=changes.locale or old.recipient_locale,
        fields={**old.fields, **changes.fields},
        issued_on=changes.issued_on or old.issued_on.isoformat(),
        expires_on=expires_on if changes.expires_on is None else changes.expires_on,
        external_id=changes.external_id,
        send_email=old.send_email,
    )


def _is_same(old: Record, checked: Admitted, template: Record) -> bool:
    now = (checked.recipient_name, checked.recipient_email, checked.locale, checked.issued_on)
    before = (old.recipient_name, old.recipient_email, old.recipient_locale, old.issued_on)
    return (
        now == before
        and (checked.fields, checked.expires_on) == (old.fields, old.expires_on)
        and template.version_id == old.template_version_id
    )


def _again(earlier: Record, credential_id: str, digest: bytes) -> Accepted:
    if earlier.content_digest != digest:
        raise Problem(
            "state_conflict", f"{credential_id}: {earlier.id} replaces it; correct that one instead"
        )
    return Accepted(earlier.id, earlier.run_id, earlier.state, is_new=False)


def _admit(
    rt: Runtime, session: Session, caller: Caller, template: Record, checked: Admitted, *, supersedes: str
) -> tuple[str, str]:
    (row,) = admission.rows(rt, session, caller, template, [checked], supersedes=supersedes)
    if not credentials.add(session, **row):
        detail = "external_id belongs to another credential; the old one keeps its own"
        raise Problem("external_id_conflict", detail)
    run_id = issuing.promise_issuing(session, row["id"], caller.organisation_id)
    bookkeeping.audit(
        session,
        organisation_id=caller.organisation_id,
        actor=caller.actor,
        action="credential.supersede_requested",
        subject=supersedes,
        request_id=caller.request_id,
        created_at=rt.database.now(),
    )
    return row["id"], run_id
