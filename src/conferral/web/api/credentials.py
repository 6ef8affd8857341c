# SPDX-License-Identifier: Apache-2.0
"""Credentials: issue, create, list, read, and fetch what was made of them."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, jsonify
from sqlalchemy.orm import Session

from conferral.domain.ids import is_id
from conferral.domain.problems import FieldError, Problem
from conferral.reliable import status
from conferral.reliable.tables import STARTED, WAITING
from conferral.services import anchoring, bundling, issuing
from conferral.services.admission import Wanted
from conferral.services.idempotency import Answer
from conferral.services.issuing import Accepted
from conferral.store.queries import credentials, deliveries, listing
from conferral.store.records import Record
from conferral.web import cursors, idempotent
from conferral.web.api import blueprint, outputs, wire
from conferral.web.api.models import (
    CONFLICT,
    NOT_FOUND,
    BatchRow,
    CredentialBody,
    CredentialPath,
    CredentialsQuery,
    InlineCredential,
    IssueBody,
    file_of,
)
from conferral.web.gate import needs
from conferral.web.problems import Refusal
from conferral.web.site import caller, runtime

api = blueprint("credentials")

STATUS_SECONDS = 2  # Retry-After of a 202: an idle system is done long before
PROOF_SECONDS = 1  # a leaf waits milliseconds for its checkpoint
ACCEPTED, CREATED = 202, 201
ISSUE_ANSWERS: Final[dict[Any, Any]] = {ACCEPTED: outputs.AcceptedOut, **NOT_FOUND, **CONFLICT}


@api.post("/credentials/issue", endpoint="issue_alias", responses=ISSUE_ANSWERS)
@api.post("/v1/credentials/issue", responses=ISSUE_ANSWERS)
@needs("credentials:write")
def issue(body: IssueBody) -> Response:
    """Accept a credential for issuing: 202 with a task to look at; repeat safely with Idempotency-Key."""
    return idempotent.once(lambda session: _accepted(_request(session, body)))


@api.post("/v1/credentials", responses={201: outputs.AcceptedOut, **ISSUE_ANSWERS})
@needs("credentials:write")
def create(body: CredentialBody) -> Response:
    """Create a credential and issue it, or only create it with `issue: false`."""

    def work(session: Session) -> Answer:
        accepted = issuing.request(runtime(), session, caller(), wanted_of(body), issue=body.issue)
        return _accepted(accepted) if accepted.run_id is not None else _created(accepted)

    return idempotent.once(work)


@api.get("/v1/credentials", responses={200: outputs.CredentialPage})
@needs("credentials:read")
def list_credentials(query: CredentialsQuery) -> Response:
    """List credentials, newest first."""
    rt, who = runtime(), caller()
    wanted = query.model_dump(exclude={"cursor", "limit"}, exclude_none=True)
    if query.task_state is not None:
        # On the wire a waiting run is a started one.
        wanted["task_state"] = [query.task_state, *([WAITING] if query.task_state == STARTED else [])]
    with rt.database.snapshot() as session:
        rows = listing.credentials_page(
            session,
            who.organisation_id,
            who.mode,
            wanted=wanted,
            before=cursors.read(query.cursor),
            limit=query.limit,
        )
    return jsonify(cursors.page(rows, query.limit, lambda row: wire.credential(rt, row)))


@api.get("/v1/credentials/<credential_id>", responses={200: outputs.CredentialOut, **NOT_FOUND})
@needs("credentials:read")
def show(path: CredentialPath) -> Response:
    """Return one credential."""
    return jsonify(wire.credential(runtime(), _own(path.credential_id)))


@api.get("/v1/credentials/<credential_id>/timeline", responses={200: outputs.TimelineOut, **NOT_FOUND})
@needs("credentials:read")
def timeline(path: CredentialPath) -> Response:
    """Return everything that was done for a credential: its runs and their attempts, in time order."""
    row = _own(path.credential_id)
    with runtime().database.snapshot() as session:
        entries = status.timeline(session, row.id)
        doubtful = {
            delivery.run_id: delivery.possible_duplicate
            for delivery in deliveries.of_credential(session, row.id)
        }
    data = [
        wire.timeline_entry(entry, possible_duplicate=doubtful.get(entry.run.id, False)) for entry in entries
    ]
    return jsonify(data=data)


@api.get("/v1/credentials/<credential_id>/pdf", responses={200: file_of("application/pdf"), **NOT_FOUND})
@needs("credentials:read")
def pdf(path: CredentialPath) -> Response:
    """Return the certificate: PDF/A-3 with the credential attached."""
    row = _signed(path.credential_id)
    response = Response(runtime().blobs.get(row.pdf_sha256), mimetype="application/pdf")
    response.headers["Content-Disposition"] = f'attachment; filename="{row.id}.pdf"'
    return response


@api.get("/v1/credentials/<credential_id>/vc.json", responses={200: file_of("application/vc"), **NOT_FOUND})
@needs("credentials:read")
def vc(path: CredentialPath) -> Response:
    """Return the exact signed bytes of the verifiable credential."""
    row = _signed(path.credential_id)
    return Response(runtime().blobs.get(row.vc_sha256), mimetype="application/vc")


@api.get("/v1/credentials/<credential_id>/proof", responses={200: file_of("text/plain"), **NOT_FOUND})
@needs("credentials:read")
def proof(path: CredentialPath) -> Response:
    """Return the proof that the log contains the credential (C2SP tlog-proof)."""
    row = _signed(path.credential_id)
    with runtime().database.snapshot() as session:
        found = anchoring.proof_of(session, row.id)
    if found is None:
        raise Refusal(
            Problem("temporary_reduced_capacity", "it is not in a published checkpoint yet"),
            headers={"Retry-After": str(PROOF_SECONDS)},
            status=503,
        )
    return Response(found, mimetype="text/plain")


@api.get(
    "/v1/credentials/<credential_id>/proof.zip", responses={200: file_of("application/zip"), **NOT_FOUND}
)
@needs("credentials:read")
def proof_bundle(path: CredentialPath) -> Response:
    """Return everything that is needed to check the credential without us."""
    signed = _signed(path.credential_id)
    with runtime().database.snapshot() as session:
        row = credentials.work(session, signed.id)
    content = bundling.bundle(runtime(), row) if row is not None else None
    if content is None:
        raise Refusal(
            Problem("temporary_reduced_capacity", "it is not in a published checkpoint yet"),
            headers={"Retry-After": str(PROOF_SECONDS)},
            status=503,
        )
    response = Response(content, mimetype="application/zip")
    response.headers["Content-Disposition"] = f'attachment; filename="{signed.id}.proof.zip"'
    return response


def wanted_of(body: InlineCredential) -> Wanted:
    """Return what a body asks for, as admission checks it."""
    return row_wanted(body.template_id, body, send_email=body.send_email)


def row_wanted(template: str, row: InlineCredential | BatchRow, *, send_email: bool) -> Wanted:
    """Return what one row of a batch, or a whole body, asks for."""
    return Wanted(
        template=template,
        recipient_name=row.recipient.name,
        recipient_email=row.recipient.email,
        locale=row.recipient.locale,
        fields=row.fields,
        issued_on=row.issued_on,
        expires_on=row.expires_on,
        external_id=row.external_id,
        send_email=send_email,
    )


def _request(session: Session, body: IssueBody) -> Accepted:
    given = body.model_fields_set - {"credential_id"}
    if body.credential_id is not None:
        if given:
            detail = "credential_id stands alone: remove the rest"
            error = FieldError(f"#/{min(given)}", "field_unknown", detail)
            raise Problem("validation_failed", detail, errors=[error])
        if not is_id(body.credential_id, "cred"):
            raise Problem("not_found", "there is no such credential")
        return issuing.request_existing(session, caller(), body.credential_id)
    missing = [name for name in ("template_id", "recipient") if getattr(body, name) is None]
    if missing:
        detail = "give it, or the credential_id of one that exists"
        errors = [FieldError(f"#/{name}", "field_required", detail) for name in missing]
        raise Problem("validation_failed", f"{len(missing)} value(s) are missing", errors=errors)
    inline = InlineCredential.model_validate(body.model_dump(exclude={"credential_id"}))
    return issuing.request(runtime(), session, caller(), wanted_of(inline))


def _accepted(accepted: Accepted) -> Answer:
    """Return the 202: exactly these four members."""
    rt = runtime()
    where = f"/tasks/{accepted.run_id}/status"
    body: dict[str, Any] = {
        "task_id": accepted.run_id,
        "status": accepted.state,
        "credential_id": accepted.credential_id,
        "links": {
            "status": rt.url(where),
            "credential": rt.url(f"/v1/credentials/{accepted.credential_id}"),
        },
    }
    return idempotent.json_answer(ACCEPTED, body, {"Location": where, "Retry-After": str(STATUS_SECONDS)})


def _created(accepted: Accepted) -> Answer:
    where = f"/v1/credentials/{accepted.credential_id}"
    body: dict[str, Any] = {
        "task_id": None,
        "status": accepted.state,
        "credential_id": accepted.credential_id,
        "links": {"status": None, "credential": runtime().url(where)},
    }
    return idempotent.json_answer(CREATED, body, {"Location": where})


def _own(credential_id: str) -> Record:
    """Return a credential of the caller; everybody else's is not found."""
    who = caller()
    row = None
    if is_id(credential_id, "cred"):
        with runtime().database.snapshot() as session:
            row = listing.credential(session, who.organisation_id, who.mode, credential_id)
    if row is None:
        raise Problem("not_found", "there is no such credential")
    return row


def _signed(credential_id: str) -> Record:
    row = _own(credential_id)
    if row.pdf_sha256 is None:
        raise Problem("state_conflict", f"it is {row.state}: nothing was signed yet")
    return row
