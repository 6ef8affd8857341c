# SPDX-License-Identifier: Apache-2.0
"""Verify a credential of ours: the page's checks, from the database and the stored bytes alone.

The answer is the same with Redis, mail and chains down. A foreign or offline check is the
command line's, with the same pure rules.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy.orm import Session

from conferral.domain import canonical, credential, credential_checks, verification
from conferral.domain.verification import Evidence, Finding, Judgement, Standing, StatusFinding
from conferral.services import anchoring, signing_keys
from conferral.services.runtime import Runtime
from conferral.store.queries import credentials
from conferral.store.records import Record

_STANDING = {
    credential.ISSUED: StatusFinding(Standing.IN_FORCE, "the issuer has not withdrawn it"),
    credential.REVOKED: StatusFinding(Standing.REVOKED, "withdrawn by the issuer"),
    credential.SUSPENDED: StatusFinding(Standing.SUSPENDED, "paused by the issuer"),
    credential.SUPERSEDED: StatusFinding(Standing.REPLACED, "there is a newer version"),
}


@dataclass(frozen=True, slots=True)
class PublicCredential:
    """What a stranger with the link sees."""

    token: str
    title: str
    recipient_name: str
    issuer_name: str
    issued_on: date
    expires_on: date | None
    is_test: bool
    judgement: Judgement
    document: dict[str, Any]


def by_token(rt: Runtime, token: str) -> PublicCredential | None:
    """Return a credential by its public token; None if unknown, hidden or not issued yet."""
    with rt.database.snapshot() as session:
        row = credentials.by_token(session, token)
        if row is None or row.state not in _STANDING:
            return None
        anchor = _anchor(session, row)
    stored = rt.blobs.get(row.vc_sha256)
    document = canonical.read_document(stored)
    return PublicCredential(
        token=token,
        title=row.fields.get("course", row.template_name),
        recipient_name=row.recipient_name,
        issuer_name=row.organisation_name,
        issued_on=row.issued_on,
        expires_on=row.expires_on,
        is_test=row.mode == "test",
        judgement=_judge(rt, row, stored, document, anchor),
        document=document,
    )


def base_pdf(rt: Runtime, token: str) -> bytes | None:
    """Return the bytes that the signed credential names by digest, the same for ever."""
    row = _issued(rt, token)
    return rt.blobs.get(row.pdf_sha256)[: row.base_length] if row is not None else None


def final_pdf(rt: Runtime, token: str) -> bytes | None:
    """Return the certificate with its credential attached."""
    row = _issued(rt, token)
    return rt.blobs.get(row.pdf_sha256) if row is not None else None


def stored_credential(rt: Runtime, token: str) -> bytes | None:
    """Return the exact signed bytes."""
    row = _issued(rt, token)
    return rt.blobs.get(row.vc_sha256) if row is not None else None


def tlog_proof(rt: Runtime, token: str) -> str | None:
    """Return the inclusion proof against the newest checkpoint."""
    row = _issued(rt, token)
    if row is None:
        return None
    with rt.database.snapshot() as session:
        return anchoring.proof_of(session, row.id)


def uploaded(rt: Runtime, stored: bytes, *, pdf_digest: Finding | None = None) -> Judgement:
    """Judge credential bytes that somebody brought, by what we know of them."""
    now = rt.database.now()
    try:
        document = canonical.read_document(stored)
    except canonical.UnsafeDocument:
        return verification.no_credential(now)
    with rt.database.snapshot() as session:
        row = credentials.by_vc_id(session, str(document.get("id", "")))
        anchor = _anchor(session, row) if row is not None and row.vc_sha256 else None
    if row is None:
        return verification.no_credential(now)
    exact = credential_checks.log_entry(canonical.jcs(document)).hex() == row.vc_sha256
    return _judge(rt, row, stored, document, anchor, is_recorded=exact, pdf_digest=pdf_digest)


def digest_of_base(rt: Runtime, vc_id: str) -> bytes | None:
    """Return the SHA-384 of the PDF that a credential of ours was signed with."""
    with rt.database.snapshot() as session:
        row = credentials.by_vc_id(session, vc_id)
    return row.base_sha384 if row is not None else None


def _issued(rt: Runtime, token: str) -> Record | None:
    with rt.database.snapshot() as session:
        row = credentials.by_token(session, token)
    return row if row is not None and row.state in _STANDING else None


def _anchor(session: Session, row: Record) -> tuple[str, Any] | None:
    proof = anchoring.proof_of(session, row.id)
    key = anchoring.verifier_key(session, row.mode)
    return (proof, key) if proof is not None and key is not None else None


def _judge(
    rt: Runtime,
    row: Record,
    stored: bytes,
    document: dict[str, Any],
    anchor: tuple[str, Any] | None,
    *,
    is_recorded: bool = True,
    pdf_digest: Finding | None = None,
) -> Judgement:
    keys = signing_keys.published(rt, row.organisation_id, row.mode)
    valid_from, valid_until = credential_checks.validity_of(document)
    return verification.judge(
        Evidence(
            now=rt.database.now(),
            signature=credential_checks.check_signature(document, keys),
            is_known_issuer=True,
            issuer=credential_checks.check_issuer(document, list(keys)),
            status=_STANDING.get(row.state, verification.UNTOLD),
            is_recorded=is_recorded,
            valid_from=valid_from,
            valid_until=valid_until,
            anchor=(
                credential_checks.check_anchor(stored, anchor[0], [anchor[1]])
                if anchor is not None
                else verification.untold("it waits for its place in the log")
            ),
            pdf_digest=pdf_digest,
        )
    )


def sha384(content: bytes) -> bytes:
    """Return the digest that credentials name their PDF by."""
    return hashlib.sha384(content).digest()
