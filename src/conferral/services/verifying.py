# SPDX-License-Identifier: Apache-2.0
"""Verify a credential of ours: the page's checks, from the database and the stored bytes alone.

The answer is the same with Redis, mail and chains down. A foreign or offline check is the
command line's, with the same pure rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import canonical, credential, credential_checks, verification
from conferral.domain.verification import Evidence, Finding, Judgement, Standing, StatusFinding
from conferral.services import anchoring, signing_keys
from conferral.services.runtime import Runtime
from conferral.store.queries import credentials, issuers
from conferral.store.records import Record

_URN: Final = re.compile(rb"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_URNS: Final = 16  # ids looked up; a certificate holds two
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


def by_token(rt: Runtime, token: str, *, as_of: datetime | None = None) -> PublicCredential | None:
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
        judgement=_judge(rt, row, stored, document, anchor, as_of=as_of),
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


def uploaded(
    rt: Runtime, brought: bytes, *, pdf_digest: Finding | None = None, as_of: datetime | None = None
) -> Judgement | None:
    """Judge credential bytes that somebody brought; None when neither it nor its issuer is ours.

    Args:
        rt: the runtime.
        brought: JSON as it came; it need not be the stored bytes.
        pdf_digest: what was found about the PDF around it, if there was one.
        as_of: when is judged (default: now).
    """
    try:
        document = canonical.read_document(brought)
    except canonical.UnsafeDocument:
        return None
    with rt.database.snapshot() as session:
        row = credentials.by_vc_id(session, str(document.get("id", "")))
        anchor = _anchor(session, row) if row is not None and row.vc_sha256 else None
        owner = issuers.organisation_of_did(session, credential_checks.issuer_of(document))
    if row is not None and row.vc_sha256 is not None:
        kept = rt.blobs.get(row.vc_sha256)
        return _judge(
            rt, row, kept, document, anchor,
            is_recorded=_is_same(document, kept), pdf_digest=pdf_digest, as_of=as_of,
        )  # fmt: skip
    if owner is None:
        return None
    keys = signing_keys.published(rt, owner.organisation_id, owner.mode)
    return verification.judge(
        Evidence(
            now=as_of or rt.database.now(),
            signature=_signature(document, keys),
            is_known_issuer=True,
            issuer=credential_checks.check_issuer(document, list(keys)),
            is_recorded=False,
            pdf_digest=pdf_digest,
        )
    )


def unreadable(rt: Runtime, content: bytes) -> Judgement | None:
    """Judge a file in which no credential can be read; None when nothing in it names one of ours.

    Our PDFs hold the credential uncompressed, so its id is found in what is left of it.
    """
    named = dict.fromkeys(found.group().decode() for found in _URN.finditer(content))
    with rt.database.snapshot() as session:
        rows = [credentials.by_vc_id(session, vc_id) for vc_id in list(named)[:_URNS]]
    if not any(row is not None and row.vc_sha256 is not None for row in rows):
        return None
    return verification.judge(
        Evidence(
            now=rt.database.now(),
            signature=verification.fails("the credential in the file was changed and cannot be read"),
            is_known_issuer=True,
            issuer=verification.untold("nothing else is believed"),
        )
    )


def _is_same(document: dict[str, Any], kept: bytes) -> bool:
    """Whether a document is the kept one: byte for byte in JCS, or signed by the very same signature."""
    try:
        if canonical.jcs(document) == kept:
            return True
    except canonical.UnsafeDocument:
        return False
    mine, theirs = (one.get("proof") for one in (canonical.read_document(kept), document))
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return False
    return bool(mine["proofValue"] == theirs.get("proofValue"))


def _signature(document: dict[str, Any], keys: credential_checks.Keys) -> Finding:
    """Check a signature that has to be one of ours: any other key is a wrong one."""
    found = credential_checks.check_signature(document, keys)
    return verification.fails(found.detail) if found.ok is None else found


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
    as_of: datetime | None = None,
) -> Judgement:
    keys = signing_keys.published(rt, row.organisation_id, row.mode)
    signature = _signature(document, keys)
    # Dates of a document that nobody signed are not read: they may be anything.
    valid_from, valid_until = credential_checks.validity_of(document) if signature.ok else (None, None)
    return verification.judge(
        Evidence(
            now=as_of or rt.database.now(),
            signature=signature,
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
