# SPDX-License-Identifier: Apache-2.0
"""The standing of credentials: revoke, suspend, reinstate, supersede; one, or all of a batch."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, jsonify
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.domain.status_change import REINSTATE, REVOKE, SUSPEND, VERBS, Verb
from conferral.services import changing_batches, changing_status, superseding
from conferral.services.changing_batches import Preview
from conferral.services.changing_status import Changed
from conferral.services.idempotency import Answer
from conferral.services.superseding import Changes
from conferral.web import idempotent
from conferral.web.api import blueprint, outputs, wire
from conferral.web.api.models import (
    CONFLICT,
    ERASED,
    NOT_FOUND,
    BatchPath,
    CredentialPath,
    ReasonBody,
    ReinstateBody,
    SupersedeBody,
)
from conferral.web.gate import needs
from conferral.web.site import caller, runtime

api = blueprint("standing")

OK, ACCEPTED = 200, 202
STATUS_SECONDS: Final = 2  # Retry-After of a corrected credential: an idle system is done long before
CHANGED: Final[dict[Any, Any]] = {ACCEPTED: outputs.ChangedOut, **NOT_FOUND, **CONFLICT, **ERASED}
CHANGED_BATCH: Final[dict[Any, Any]] = {
    OK: outputs.BatchPreviewOut,
    ACCEPTED: outputs.BatchChangedOut,
    **NOT_FOUND,
    **CONFLICT,
}


class PreviewQuery(BaseModel):
    """Whether to count only."""

    preview: bool = Field(default=False, description="count, and change nothing")


@api.post("/v1/credentials/<credential_id>/revoke", responses=CHANGED)
@needs("credentials:write")
def revoke(path: CredentialPath, body: ReasonBody) -> Response:
    """Withdraw a credential for good; once more changes nothing and answers the same."""
    return _change(REVOKE, path, body.reason)


@api.post("/v1/credentials/<credential_id>/suspend", responses=CHANGED)
@needs("credentials:write")
def suspend(path: CredentialPath, body: ReasonBody) -> Response:
    """Pause a credential whose template is suspendable."""
    return _change(SUSPEND, path, body.reason)


@api.post("/v1/credentials/<credential_id>/reinstate", responses=CHANGED)
@needs("credentials:write")
def reinstate(path: CredentialPath, body: ReinstateBody) -> Response:
    """Put a suspended credential into force again."""
    del body
    return _change(REINSTATE, path, None)


@api.post(
    "/v1/credentials/<credential_id>/supersede",
    responses={ACCEPTED: outputs.SupersedingOut, **NOT_FOUND, **CONFLICT, **ERASED},
)
@needs("credentials:write")
def supersede(path: CredentialPath, body: SupersedeBody) -> Response:
    """Issue a corrected credential; the commit that issues it ends this one."""
    credential_id = _id(path.credential_id, "cred")
    wanted = body.changes
    person = wanted.recipient
    changes = Changes(
        recipient_name=person.name if person else None,
        recipient_email=person.email if person else None,
        locale=person.locale if person else None,
        fields=wanted.fields,
        issued_on=wanted.issued_on,
        expires_on=wanted.expires_on,
        external_id=wanted.external_id,
        template=wanted.template_id,
    )
    return idempotent.once(lambda session: _superseding(session, credential_id, changes))


@api.post("/v1/batches/<batch_id>/revoke", responses=CHANGED_BATCH)
@needs("batches:write")
def revoke_batch(path: BatchPath, query: PreviewQuery, body: ReasonBody) -> Response:
    """Withdraw all issued credentials of a batch; what is not issued yet is not touched."""
    return _change_batch("revoke", path, query, body.reason)


@api.post("/v1/batches/<batch_id>/suspend", responses=CHANGED_BATCH)
@needs("batches:write")
def suspend_batch(path: BatchPath, query: PreviewQuery, body: ReasonBody) -> Response:
    """Pause all issued credentials of a batch whose template is suspendable."""
    return _change_batch("suspend", path, query, body.reason)


@api.post("/v1/batches/<batch_id>/reinstate", responses=CHANGED_BATCH)
@needs("batches:write")
def reinstate_batch(path: BatchPath, query: PreviewQuery, body: ReinstateBody) -> Response:
    """Put all suspended credentials of a batch into force again."""
    del body
    return _change_batch("reinstate", path, query, None)


def _change(verb: Verb, path: CredentialPath, reason: str | None) -> Response:
    credential_id = _id(path.credential_id, "cred")

    def work(session: Session) -> Answer:
        changed = changing_status.change(runtime(), session, caller(), verb, credential_id, reason=reason)
        return idempotent.json_answer(ACCEPTED, _changed(changed))

    return idempotent.once(work)


def _changed(changed: Changed) -> dict[str, Any]:
    return {
        "credential_id": changed.credential_id,
        "status": changed.state,
        "reason": changed.reason,
        "changed_at": wire.moment(changed.changed_at),
        "task_ids": list(changed.run_ids),
        "links": {"credential": runtime().url(f"/v1/credentials/{changed.credential_id}")},
    }


def _superseding(session: Session, credential_id: str, changes: Changes) -> Answer:
    rt = runtime()
    accepted = superseding.request(rt, session, caller(), credential_id, changes)
    where = f"/tasks/{accepted.run_id}/status"
    body = {
        "task_id": accepted.run_id,
        "status": accepted.state,
        "credential_id": accepted.credential_id,
        "supersedes": credential_id,
        "links": {
            "status": rt.url(where),
            "credential": rt.url(f"/v1/credentials/{accepted.credential_id}"),
            "supersedes": rt.url(f"/v1/credentials/{credential_id}"),
        },
    }
    return idempotent.json_answer(ACCEPTED, body, {"Location": where, "Retry-After": str(STATUS_SECONDS)})


def _change_batch(name: str, path: BatchPath, query: PreviewQuery, reason: str | None) -> Response:
    batch_id = _id(path.batch_id, "bat")
    if query.preview:
        with runtime().database.snapshot() as session:
            batch = changing_batches.named(session, caller(), batch_id)
            return jsonify(_counted(batch_id, changing_batches.preview(session, batch, VERBS[name])))

    def work(session: Session) -> Answer:
        counts, run_id = changing_batches.request(
            runtime(), session, caller(), VERBS[name], batch_id, reason=reason
        )
        return idempotent.json_answer(ACCEPTED, {**_counted(batch_id, counts), "task_id": run_id})

    return idempotent.once(work)


def _counted(batch_id: str, counts: Preview) -> dict[str, Any]:
    return {"batch_id": batch_id, "affected": counts.affected, "others": counts.others}


def _id(text: str, kind: str) -> str:
    if not is_id(text, kind):
        raise Problem("not_found", "there is no such thing")
    return text
