# SPDX-License-Identifier: Apache-2.0
"""Verify a credential of ours: the page's checks, from the database and the stored bytes alone.

The answer is the same with Redis, mail and chains down. What somebody brings is judged in
`verifying_uploads`, a foreign or offline check is the command line's; all by the same pure rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import canonical, credential, credential_checks, verification
from conferral.domain.problems import Problem
from conferral.domain.verification import Evidence, Finding, Judgement, Standing, StatusFinding
from conferral.services import anchoring, signing_keys
from conferral.services.runtime import Runtime
from conferral.store.queries import credentials, evidence
from conferral.store.records import Record

_STANDINGS: Final = {
    credential.ISSUED: (Standing.IN_FORCE, "the issuer has not withdrawn it"),
    credential.REVOKED: (Standing.REVOKED, "withdrawn by the issuer"),
    credential.SUSPENDED: (Standing.SUSPENDED, "paused by the issuer"),
    credential.SUPERSEDED: (Standing.REPLACED, "there is a newer version"),
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
    successor: str | None = None
    """The public token of what replaces it, if that is open to strangers."""


def by_token(rt: Runtime, token: str, *, as_of: datetime | None = None) -> PublicCredential | None:
    """Return a credential by its public token; None if unknown, hidden or not issued yet.

    Raises:
        Problem: `erased`.
    """
    row, anchor, successor, is_erased = _looked_up(rt, token)
    if is_erased:
        raise Problem("erased", verification.ERASED)
    if row is None:
        return None
    stored = rt.blobs.get(row.vc_sha256)
    document = canonical.read_document(stored)
    keys = signing_keys.ever_published(rt, row.organisation_id, row.mode)
    judgement = judge(
        rt, document, signature_of_ours(document, keys), keys,
        standing=standing_of(row), anchor=checked_anchor(stored, anchor), as_of=as_of,
    )  # fmt: skip
    return shown(row, document, judgement, successor)


def shown(
    row: Record, document: dict[str, Any], judgement: Judgement, successor: str | None
) -> PublicCredential:
    """Return what a stranger sees of a row that is open to strangers."""
    return PublicCredential(
        token=row.token,
        title=row.fields.get("course", row.template_name),
        recipient_name=row.recipient_name,
        issuer_name=row.organisation_name,
        issued_on=row.issued_on,
        expires_on=row.expires_on,
        is_test=row.mode == "test",
        judgement=judgement,
        document=document,
        successor=successor,
    )


def is_open(row: Record | None) -> bool:
    """Return whether strangers may know of a credential: it was issued, whatever became of it since."""
    return row is not None and row.state in _STANDINGS


def successor_of(session: Session, row: Record) -> str | None:
    """Return the public token of what replaces a credential, if that is open to strangers."""
    if row.superseded_by is None:
        return None
    newer = credentials.work(session, row.superseded_by)
    return str(newer.token) if newer is not None and is_open(newer) else None


def base_pdf(rt: Runtime, token: str) -> bytes | None:
    """Return the bytes that the signed credential names by digest, the same for ever."""
    row = issued(rt, token)
    return rt.blobs.get(row.pdf_sha256)[: row.base_length] if row is not None else None


def final_pdf(rt: Runtime, token: str) -> bytes | None:
    """Return the certificate with its credential attached."""
    row = issued(rt, token)
    return rt.blobs.get(row.pdf_sha256) if row is not None else None


def stored_credential(rt: Runtime, token: str) -> bytes | None:
    """Return the exact signed bytes."""
    row = issued(rt, token)
    return rt.blobs.get(row.vc_sha256) if row is not None else None


def tlog_proof(rt: Runtime, token: str) -> str | None:
    """Return the inclusion proof against the newest checkpoint."""
    row = issued(rt, token)
    if row is None:
        return None
    with rt.database.snapshot() as session:
        return anchoring.proof_of(session, row.id)


def issued(rt: Runtime, token: str) -> Record | None:
    """Return the row of a public token; None if unknown, hidden or not issued yet.

    Raises:
        Problem: `erased`.
    """
    row, _, _, is_erased = _looked_up(rt, token, with_anchor=False)
    if is_erased:
        raise Problem("erased", verification.ERASED)
    return row


def standing_of(row: Record) -> StatusFinding:
    """Return what our own row says about a credential."""
    standing, detail = _STANDINGS.get(row.state, (Standing.UNTOLD, "no status is known"))
    return StatusFinding(standing, detail, None if standing is Standing.IN_FORCE else row.status_changed_at)


def signature_of_ours(document: dict[str, Any], keys: credential_checks.Keys) -> Finding:
    """Check a signature that has to be one of ours: any other key is a wrong one."""
    found = credential_checks.check_signature(document, keys)
    return verification.fails(found.detail) if found.ok is None else found


def anchor_of(session: Session, row: Record) -> tuple[str, Any] | None:
    """Return a credential's proof and the key of its log; None before it is in a checkpoint."""
    proof = anchoring.proof_of(session, row.id)
    key = anchoring.verifier_key(session, row.mode)
    return (proof, key) if proof is not None and key is not None else None


def checked_anchor(stored: bytes, anchor: tuple[str, Any] | None) -> Finding:
    """Check a proof of our own log as a stranger would."""
    if anchor is None:
        return verification.untold("it waits for its place in the log")
    return credential_checks.check_anchor(stored, anchor[0], [anchor[1]])


def judge(
    rt: Runtime,
    document: dict[str, Any],
    signature: Finding,
    published: credential_checks.Keys,
    *,
    standing: StatusFinding,
    anchor: Finding,
    is_recorded: bool = True,
    pdf_digest: Finding | None = None,
    as_of: datetime | None = None,
) -> Judgement:
    """Judge a document of one of our issuers, whose signature was checked already."""
    valid_from = valid_until = None
    if signature.ok:
        # Dates of a document that nobody signed are not read: they may be anything.
        try:
            valid_from, valid_until = credential_checks.validity_of(document)
        except canonical.UnsafeDocument as unsafe:
            signature = verification.fails(unsafe.reason)
    return verification.judge(
        Evidence(
            now=as_of or rt.database.now(),
            signature=signature,
            is_known_issuer=True,
            issuer=credential_checks.check_issuer(document, list(published)),
            status=standing,
            is_recorded=is_recorded,
            valid_from=valid_from,
            valid_until=valid_until,
            anchor=anchor,
            pdf_digest=pdf_digest,
        )
    )


def _looked_up(
    rt: Runtime, token: str, *, with_anchor: bool = True
) -> tuple[Record | None, tuple[str, Any] | None, str | None, bool]:
    """Return row, anchor, successor and whether it was erased.

    What is unknown and what is private (not issued yet) costs the same questions, so that nobody can tell
    them apart by a clock.
    """
    with rt.database.snapshot() as session:
        row = credentials.by_token(session, token)
        if row is None or not is_open(row):
            is_erased = evidence.is_erased(session, token)
            return None, None, None, is_erased or (row is not None and row.state == credential.ERASED)
        anchor = anchor_of(session, row) if with_anchor else None
        return row, anchor, successor_of(session, row), False
