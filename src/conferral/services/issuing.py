# SPDX-License-Identifier: Apache-2.0
"""Issue a credential: accept the request, then render, sign, store and log it in the background.

The three commits: admission (row and promise); signing (digests, leaf, sequencer promised);
and, in `anchoring`, the log's commit that makes it issued and promises mail and webhooks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.adapters import design_store
from conferral.adapters.qr import qr_svg
from conferral.domain import credential, data_integrity, vc
from conferral.domain.identity import identity_hash
from conferral.domain.pdf_attachment import AttachmentRefused, attach
from conferral.domain.problems import Problem
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import BULK, INTERACTIVE, Promise, promise
from conferral.reliable.runs import Run
from conferral.services import admission, anchoring, magic, notifying, signing_keys
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
    run_id = _promise(session, row["id"], caller.organisation_id) if issue else None
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
    run_id = _promise(session, row.id, caller.organisation_id)
    return Accepted(row.id, run_id, row.state, is_new=True)


def _again(session: Session, earlier: Record, digest: bytes, *, issue: bool) -> Accepted:
    if earlier.content_digest != digest:
        raise Problem(
            "external_id_conflict",
            f"external_id belongs to {earlier.id}, which has other content; use another external_id",
        )
    run_id = earlier.run_id
    if issue and run_id is None:
        run_id = _promise(session, earlier.id, earlier.organisation_id)
    return Accepted(earlier.id, run_id, earlier.state, is_new=False)


def _promise(session: Session, credential_id: str, organisation_id: str) -> str:
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
    issuer = signing_keys.issuer(rt, work.organisation_id, work.mode)
    base = _render(rt, work)
    crash_point("pdf.rendered")
    signed = _sign(rt, work, issuer, base)
    crash_point("vc.signed")
    try:
        final = attach(base, signed, work.created_at)
    except AttachmentRefused as refused:
        raise Permanent("template_invalid", f"template {work.template_id}: {refused}") from None
    pdf_sha256 = rt.blobs.put(final)
    crash_point("pdf.stored")
    vc_sha256 = rt.blobs.put(signed)
    crash_point("vc.stored")
    with rt.database.transaction() as session:
        moved = credentials.record_signed(
            session,
            credential_id,
            base_sha384=hashlib.sha384(base).digest(),
            base_length=len(base),
            pdf_sha256=pdf_sha256,
            vc_sha256=vc_sha256,
            verification_method=issuer.verification_method,
            engine=rt.renderer.engine,
            fonts_sha256=rt.fonts.sha256,
        )
        if not moved:
            return {"status": "already_issued", "credential_id": credential_id}
        anchoring.append(rt, session, work, bytes.fromhex(vc_sha256))
        run.wait(session, "anchor", evidence={"pdf": pdf_sha256, "vc": vc_sha256, "bytes": len(final)})
        anchoring.promise_turn(session, work.mode)
        crash_point("leaf.before_commit")
    crash_point("leaf.after_commit")
    return None


def _take_up_again(rt: Runtime, credential_id: str) -> None:
    # Only a person's replay executes the run of a failed credential again.
    with rt.database.transaction() as session:
        credentials.record_requeued(session, credential_id)


def _render(rt: Runtime, work: Record) -> bytes:
    version, data = document(rt, work)
    return rt.renderer.render(version, data, timestamp=int(work.created_at.timestamp())).content


def document(rt: Runtime, work: Record) -> tuple[str, dict[str, Any]]:
    """Return what a credential is drawn from: its template version on this host, and its data."""
    version = work.design_version
    if not (rt.templates_folder / version).is_dir():
        # First use on this host. After an upgrade of the package the old source may be gone;
        # then the design as it is now is used: nobody has seen a PDF of this credential yet.
        version = design_store.materialise(rt.templates_folder, work.design, work.theme)
    verification_url = rt.url(f"/c/{work.token}")
    return version, {
        "credential": {
            "id": work.id,
            "recipient_name": work.recipient_name,
            "issued_on": work.issued_on.isoformat(),
            "expires_on": work.expires_on.isoformat() if work.expires_on else None,
            "verification_url": verification_url,
            "organisation_name": work.organisation_name,
            "description": work.description,
            **work.fields,
        },
        "theme": work.theme,
        "qr": qr_svg(verification_url),
        "test_mode": work.mode == "test",
        "language": work.recipient_locale,
    }


def _sign(rt: Runtime, work: Record, issuer: signing_keys.Issuer, base: bytes) -> bytes:
    title = work.fields.get("course", work.template_name)
    content = vc.CredentialContent(
        vc_id=work.vc_id,
        token=work.token,
        issuer_did=issuer.did,
        issuer_name=work.organisation_name,
        issuer_url=work.organisation_url,
        valid_from=vc.first_moment(work.issued_on),
        valid_until=vc.last_moment(work.expires_on) if work.expires_on else None,
        recipient_name=work.recipient_name,
        email_salt=work.salt,
        email_hash=identity_hash(work.recipient_email, work.salt),
        achievement_id=work.achievement_id,
        achievement_name=title,
        achievement_description=work.description,
        achievement_criteria=work.criteria,
        pdf_url=rt.url(f"/c/{work.token}/base.pdf"),
        pdf_sha384=hashlib.sha384(base).digest(),
        status_list_url=rt.url(f"/status/{work.status_list_number}"),
        status_list_index=work.status_index,
        status_purpose=work.status_purpose,
        created=work.created_at,
        verification_method=issuer.verification_method,
    )
    try:
        signed = vc.sign(
            vc.build(content),
            sign=issuer.sign,
            verification_method=issuer.verification_method,
            created=work.created_at,
        )
    except (vc.InvalidContent, ValueError) as invalid:
        raise Permanent("credential_data_invalid", f"credential {work.id}: {invalid}") from None
    # A wrong key never leaves the house: check with what the world will check with.
    if not data_integrity.verify_proof(signed, issuer.public_key):
        raise Permanent("signing_key_revoked", f"the key of {issuer.did} does not match its public half")
    return vc.stored_form(signed)


def give_up(rt: Runtime, session: Session, run: Run, error: Permanent) -> None:
    """Mark the credential failed with its reason, in the commit that parks its run."""
    credential_id = run.args[0]
    if credentials.record_failed(session, credential_id, error.code, error.detail):
        row = credentials.work(session, credential_id)
        if row is not None:
            notifying.announce(rt, session, "credential.failed", [row], state=credential.FAILED)
