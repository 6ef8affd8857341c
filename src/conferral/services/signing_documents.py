# SPDX-License-Identifier: Apache-2.0
"""Sign a document of other software (VC-API): stored and promised by the web, signed where the keys are.

What is signed is a leaf of the log like any other and has a place in a status list, so it can be withdrawn.
The documents themselves are kept for an hour.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import canonical, credential_checks, data_integrity, vc
from conferral.domain.problems import Problem
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import INTERACTIVE, promise
from conferral.reliable.runs import Run
from conferral.services import anchoring, signing_keys, status_lists
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import issuers, log, signed_documents
from conferral.store.records import Record

TASK: Final = "tasks.issuance.sign_document"
DOCUMENTS_KEPT: Final = timedelta(hours=1)
PURPOSE: Final = "revocation"


def request(rt: Runtime, session: Session, caller: Caller, document: dict[str, Any]) -> str:
    """Store an unsigned credential and promise its signature; return the document's id.

    Raises:
        Problem: `request_invalid`: another issuer, a proof already, a term or type that no context defines.
    """
    frozen = issuers.issuer_did(session, caller.organisation_id, caller.mode)
    if frozen is None:
        raise Problem("request_invalid", "issue one certificate first: it fixes the issuer's DID")
    if credential_checks.issuer_of(document) != frozen:
        raise Problem("request_invalid", f"issuer is not this organisation's: it signs as {frozen}")
    if "proof" in document:
        raise Problem("request_invalid", "the credential carries a proof already")
    number = index = None
    if "credentialStatus" not in document:
        ((number, index),) = status_lists.allocate(
            rt, session, caller.organisation_id, caller.mode, PURPOSE, count=1
        )
        document = {**document, "credentialStatus": _status(rt, number, index)}
    unsigned = _signable(document)
    document_id = rt.new_id("doc")
    signed_documents.add(
        session,
        id=document_id,
        organisation_id=caller.organisation_id,
        mode=caller.mode,
        unsigned=unsigned,
        status_list_number=number,
        status_index=index,
        created_at=rt.database.now().replace(microsecond=0),
    )
    promise(
        session, TASK, [document_id], key=f"sign:{document_id}", subject=document_id,
        tenant=caller.organisation_id, priority=INTERACTIVE,
    )  # fmt: skip
    return document_id


def revoke(rt: Runtime, session: Session, caller: Caller, number: int, index: int) -> None:
    """Withdraw a document by its place in a status list, for good; again changes nothing.

    Raises:
        Problem: `not_found`.
    """
    if not signed_documents.record_revoked(
        session, caller.organisation_id, caller.mode, place=(number, index), now=rt.database.now()
    ):
        raise Problem("not_found", "no document of this organisation has that place in a status list")
    status_lists.changed(rt, session, number)


def perform(rt: Runtime, run: Run, document_id: str) -> None:
    """Sign one document with the organisation's key and append its leaf."""
    with rt.database.snapshot() as session:
        row = signed_documents.one(session, document_id)
    if row is None or row.unsigned is None:
        raise Permanent("credential_data_invalid", f"document {document_id} is no longer kept")
    signed = _signed(rt, row)
    entry = hashlib.sha256(signed).digest()
    with rt.database.transaction() as session:
        if signed_documents.record_signed(session, document_id, signed=signed, entry=entry):
            log.append_leaf(
                session, log=row.mode, credential_id=None, revision=1, entry=entry, now=rt.database.now()
            )
        run.settle(session)
        anchoring.promise_turn(session, row.mode)


def give_up(_rt: Runtime, session: Session, run: Run, error: Permanent) -> None:
    """Say why the document was not signed, in the commit that parks its run."""
    signed_documents.record_failed(session, run.args[0], error.detail)


def _signable(document: dict[str, Any]) -> bytes:
    """Return what will be signed, once it is sure that the signature will cover all of it."""
    try:
        canonical.canonical_nquads(document)
        return canonical.jcs(document)
    except canonical.UnsafeDocument as unsafe:
        raise Problem("request_invalid", f"the credential cannot be signed: {unsafe.reason}") from None


def _signed(rt: Runtime, row: Record) -> bytes:
    issuer = signing_keys.issuer(rt, row.organisation_id, row.mode)
    document = canonical.read_document(row.unsigned)
    if credential_checks.issuer_of(document) != issuer.did:
        raise Permanent("credential_data_invalid", f"the issuer is not {issuer.did}")
    signed = vc.sign(
        document, sign=issuer.sign, verification_method=issuer.verification_method, created=row.created_at
    )
    if not data_integrity.verify_proof(signed, issuer.public_key):
        raise Permanent("signing_key_revoked", f"the key of {issuer.did} does not match its public half")
    return vc.stored_form(signed)


def _status(rt: Runtime, number: int, index: int) -> dict[str, str]:
    address = rt.url(f"/status/{number}")
    return {
        "id": f"{address}#{index}",
        "type": "BitstringStatusListEntry",
        "statusPurpose": PURPOSE,
        "statusListIndex": str(index),
        "statusListCredential": address,
    }
