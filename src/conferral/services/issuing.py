# SPDX-License-Identifier: Apache-2.0
"""Issue a credential: accept the request, then render, sign, store and log it in the background.

The three commits: admission (row and promise); signing (digests, leaf, sequencer promised);
and, in `anchoring`, the log's commit that makes it issued and promises mail and webhooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import credential
from conferral.domain.problems import Problem
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import BULK, INTERACTIVE, Promise, promise
from conferral.reliable.runs import Run
from conferral.services import admission, anchoring, magic, making, notifying
from conferral.services.admission import Admitted, Wanted
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import credentials
from conferral.store.records import Record

TASK: Final = "tasks.issuance.issue_credential"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a request: `run_id` is the task id, None while nobody asked to issue it."""

    credential_id: str
    run_id: str | None
    state: str
    is_new: bool


def request(rt: Runtime, session: Session, caller: Caller, wanted: Wanted, *, issue: bool = True) -> Accepted:
    """Admit a credential and promise its issuing, in the caller's transaction.

    The same `external_id` again is the same credential; with other content it is a conflict.

    Raises:
        Problem: `validation_failed` with every wrong value; `external_id_conflict`.
    """
    template = admission.find_template(session, caller.organisation_id, wanted.template)
    checked = admission.check(rt, template.design, wanted)
    if not isinstance(checked, Admitted):
        raise Problem("validation_failed", f"{len(checked)} value(s) are not valid", errors=checked)
    if checked.external_id is not None:
        earlier = credentials.by_external_id(
            session, caller.organisation_id, caller.mode, checked.external_id
        )
        if earlier is not None:
            return _again(session, earlier, checked.content_digest(template.version_id), issue=issue)
    (row,) = admission.rows(rt, session, caller, template, [checked])
    if not credentials.add(session, **row):
        earlier = credentials.by_external_id(
            session, caller.organisation_id, caller.mode, str(checked.external_id)
        )
        if earlier is not None:  # somebody else asked for it at this very moment
            return _again(session, earlier, row["content_digest"], issue=issue)
    run_id = promise_issuing(session, row["id"], caller.organisation_id) if issue else None
    crash_point("accept.before_commit")
    return Accepted(row["id"], run_id, credential.QUEUED, is_new=True)


def request_existing(session: Session, caller: Caller, credential_id: str) -> Accepted:
    """Promise the issuing of a credential that was made without; again is the same run.

    Raises:
        Problem: `not_found`.
    """
    row = credentials.of_organisation(session, caller.organisation_id, caller.mode, credential_id)
    if row is None:
        raise Problem("not_found", f"there is no credential {credential_id[:40]}")
    if row.run_id is not None:
        return Accepted(row.id, row.run_id, row.state, is_new=False)
    run_id = promise_issuing(session, row.id, caller.organisation_id)
    return Accepted(row.id, run_id, row.state, is_new=True)


def _again(session: Session, earlier: Record, digest: bytes, *, issue: bool) -> Accepted:
    if earlier.content_digest != digest:
        raise Problem(
            "external_id_conflict",
            f"external_id belongs to {earlier.id}, which has other content; use another external_id",
        )
    run_id = earlier.run_id
    if issue and run_id is None:
        run_id = promise_issuing(session, earlier.id, earlier.organisation_id)
    return Accepted(earlier.id, run_id, earlier.state, is_new=False)


def promise_issuing(session: Session, credential_id: str, organisation_id: str) -> str:
    """Promise the run that issues a credential, and name it in its row; return the run's id."""
    run_id = promise(
        session,
        TASK,
        [credential_id],
        key=run_key(credential_id, 1),
        subject=credential_id,
        tenant=organisation_id,
        priority=INTERACTIVE,
    )
    credentials.set_run(session, credential_id, run_id)
    return run_id


def run_key(credential_id: str, revision: int) -> str:
    """Return the unique key of the run that issues one revision."""
    return f"issue:{credential_id}:{revision}"


def bulk_promise(row: dict[str, Any]) -> Promise:
    """Return the promise that issues one row of a batch."""
    return Promise(
        task=TASK,
        args=[row["id"]],
        key=run_key(row["id"], 1),
        subject=row["id"],
        tenant=row["organisation_id"],
        priority=BULK,
        group_key=row["batch_id"],
    )


def perform(rt: Runtime, run: Run, credential_id: str) -> dict[str, str] | None:
    """Render, sign and store one credential, and put it into the log's queue.

    Everything before the commit is pure or repeatable: a second attempt gives the same bytes.

    Returns:
        The result if it was issued already; None when the run now waits for the log.
    """
    with rt.database.snapshot() as session:
        work = credentials.work(session, credential_id)
    if work is None:
        raise Permanent("credential_data_invalid", f"there is no credential {credential_id}")
    if work.state == credential.FAILED:
        _take_up_again(rt, credential_id)
    elif work.state != credential.QUEUED:
        return {"status": "already_issued", "credential_id": credential_id}
    magic.before_issuing(work, run)
    made = making.make(rt, work)
    stored = making.store(rt, made)
    with rt.database.transaction() as session:
        if not credentials.record_signed(session, credential_id, **stored):
            return {"status": "already_issued", "credential_id": credential_id}
        anchoring.append(rt, session, work, bytes.fromhex(stored["vc_sha256"]))
        run.wait(session, "anchor", evidence=made.evidence() | {"vc": stored["vc_sha256"]})
        anchoring.promise_turn(session, work.mode)
        crash_point("leaf.before_commit")
    crash_point("leaf.after_commit")
    return None


def _take_up_again(rt: Runtime, credential_id: str) -> None:
    # Only a person's replay executes the run of a failed credential again.
    with rt.database.transaction() as session:
        if not credentials.record_requeued(session, credential_id):
            raise Permanent("state_conflict", f"{credential_id}: another one replaces its predecessor by now")


def give_up(rt: Runtime, session: Session, run: Run, error: Permanent) -> None:
    """Mark the credential failed with its reason, in the commit that parks its run."""
    credential_id = run.args[0]
    if credentials.record_failed(session, credential_id, error.code, error.detail):
        row = credentials.work(session, credential_id)
        if row is not None:
            notifying.announce(rt, session, "credential.failed", [row], state=credential.FAILED)
