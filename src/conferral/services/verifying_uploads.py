# SPDX-License-Identifier: Apache-2.0
"""Judge what somebody brings: a PDF, a JSON, a bundle. Nothing of it is stored or believed.

What we issued is recognised by its id, by the digest of its canonical bytes (also an older revision, also an
erased one), or by its signature. A stranger's document is canonicalised in a child that can be killed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.adapters import document_checker
from conferral.adapters.brought_file import Material
from conferral.domain import canonical, credential, credential_checks, did, pdf_binding, verification
from conferral.domain.credential_checks import Keys
from conferral.domain.problems import Problem
from conferral.domain.verification import Finding, Judgement, Standing, StatusFinding
from conferral.services import signing_keys, verifying
from conferral.services.runtime import Runtime
from conferral.services.verifying import PublicCredential
from conferral.store.queries import credentials, evidence, issuers
from conferral.store.records import Record

_URN: Final = re.compile(rb"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_URNS: Final = 16  # ids looked up; a certificate holds two
_MOST_ID: Final = 60  # characters of an id of ours; a longer one is nobody's
_WITHDRAWN: Final = StatusFinding(Standing.WITHDRAWN, "withdrawn")
_OLDER: Final = "it was signed again under another key; this is the older revision"


@dataclass(frozen=True, slots=True)
class Verified:
    """The verdict on something that was brought.

    Attributes:
        judgement: checks and verdict.
        credential: who and what, by our records; only under a true signature.
        original: the public token of what was really issued, when this is not it.
        remark: why nothing could be judged, for people.
    """

    judgement: Judgement
    credential: PublicCredential | None = None
    original: str | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What our records say about a document: all of it asked for in one snapshot."""

    row: Record | None
    is_exact: bool
    replaced: Record | None
    is_erased: bool
    document: Record | None  # what other software had signed
    anchor: tuple[str, Any] | None
    successor: str | None
    organisation_id: str
    mode: str


def judged(rt: Runtime, material: Material, *, as_of: datetime | None = None) -> Verified | None:
    """Judge what was brought; None when neither it nor its issuer is ours.

    Args:
        rt: the runtime.
        material: what `brought_file.read` made of the file.
        as_of: when is judged (default: now).

    Raises:
        Problem: `temporary_reduced_capacity` when this machine is too busy to look at it.
    """
    if material.brought is None:
        return _unreadable(rt, material.raw)
    try:
        document = canonical.read_document(material.brought.credential)
    except canonical.UnsafeDocument:
        return _unreadable(rt, material.raw)
    known = _known(rt, document)
    if known is None:
        return None
    published = signing_keys.published(rt, known.organisation_id, known.mode)
    signature = _signature(document, material.brought.credential, _every_key(rt, known), known)
    digest = material.brought.pdf_digest
    if digest is not None and digest.ok is False and material.pdf is not None:
        digest = verification.fails(_what_the_pdf_is(rt, material.pdf, known))
    stored = canonical.jcs(document) if known.is_exact else b""
    judgement = verifying.judge(
        rt, document, signature, published,
        standing=_standing(known),
        anchor=_anchor(rt, stored, known),
        is_recorded=known.is_exact or _is_kept_signature(rt, document, known),
        pdf_digest=digest,
        as_of=as_of,
    )  # fmt: skip
    return _verified(document, judgement, known)


def nothing_of_ours(rt: Runtime, material: Material) -> Verified:
    """Judge what names no issuer of ours: nothing is known, and nothing is said against it."""
    now = rt.database.now()
    if material.brought is None:
        return Verified(verification.no_credential(now), remark=material.remark)
    try:
        document = canonical.read_document(material.brought.credential)
    except canonical.UnsafeDocument as unsafe:
        remark = f"There is no credential in it: {unsafe.reason}."
        return Verified(verification.no_credential(now), remark=remark)
    if "proof" not in document:
        return Verified(verification.no_credential(now), remark="It carries no signature.")
    remark = "It names an issuer that this installation does not know. Ask the issuer's own page."
    return Verified(verification.no_credential(now), remark=remark)


def _known(rt: Runtime, document: dict[str, Any]) -> _Known | None:
    """Look a document up; what is private costs the same questions as what is unknown."""
    try:
        entry = credential_checks.log_entry(canonical.jcs(document))
    except canonical.UnsafeDocument:
        entry = b""
    named = document.get("id")
    vc_id = named if isinstance(named, str) and len(named) <= _MOST_ID and "\0" not in named else ""
    with rt.database.snapshot() as session:
        row = credentials.by_vc_id(session, vc_id)
        leaf = evidence.leaf_of_entry(session, entry)
        replaced = evidence.revision_of(session, entry)
        owner = issuers.organisation_of_did(session, credential_checks.issuer_of(document)[:500])
        is_exact = leaf is not None or replaced is not None
        is_erased = _is_erased(row) or (leaf is not None and leaf.state == credential.ERASED)
        if row is not None and not verifying.is_open(row) and not (is_exact and row.vc_sha256 is not None):
            row = None
        if row is None and owner is None:
            return None
        anchor, successor = _more(session, row)
    return _Known(
        row=row,
        is_exact=is_exact,
        replaced=replaced,
        is_erased=is_erased,
        document=leaf if leaf is not None and leaf.document_id is not None else None,
        anchor=anchor,
        successor=successor,
        organisation_id=row.organisation_id if row is not None else owner.organisation_id,  # type: ignore[union-attr]
        mode=row.mode if row is not None else owner.mode,  # type: ignore[union-attr]
    )


def _more(session: Session, row: Record | None) -> tuple[tuple[str, Any] | None, str | None]:
    if row is None or row.state == credential.ERASED:
        return None, None
    return verifying.anchor_of(session, row), verifying.successor_of(session, row)


def _is_erased(row: Record | None) -> bool:
    return row is not None and row.state == credential.ERASED


def _every_key(rt: Runtime, known: _Known) -> Keys:
    """Return every key of the issuer, withdrawn ones included: they too tell a forgery from a copy."""
    with rt.database.snapshot() as session:
        frozen = issuers.issuer_did(session, known.organisation_id, known.mode)
        rows = evidence.every_key(session, known.organisation_id, known.mode)
    if frozen is None:
        return {}
    keys = [did.PublishedKey(row.number, row.public_key) for row in rows]
    return {did.verification_method(frozen, key): key.public_key for key in keys}


def _signature(document: dict[str, Any], content: bytes, keys: Keys, known: _Known) -> Finding:
    """Check a signature that has to be one of ours; only what we signed ourselves is read in this process."""
    if known.is_exact:
        return verifying.signature_of_ours(document, keys)
    try:
        found = document_checker.check_signature(content, keys)
    except document_checker.NotChecked:
        raise Problem("temporary_reduced_capacity", "too much is being verified; come back soon") from None
    return verification.fails(found.detail) if found.ok is None else found


def _standing(known: _Known) -> StatusFinding:
    if known.is_erased:
        return _WITHDRAWN
    if known.replaced is not None:
        return StatusFinding(Standing.REPLACED, _OLDER, known.replaced.replaced_at)
    if known.document is not None:
        since = known.document.revoked_at
        return StatusFinding(
            Standing.IN_FORCE if since is None else Standing.REVOKED, "by our records", since
        )
    return verifying.standing_of(known.row) if known.row is not None else verification.UNTOLD


def _anchor(rt: Runtime, stored: bytes, known: _Known) -> Finding:
    if known.is_erased or known.replaced is not None or known.document is not None:
        return verification.holds("its digest stands in the log")
    if known.row is None:
        return verification.NOT_LOGGED
    return verifying.checked_anchor(stored or rt.blobs.get(known.row.vc_sha256), known.anchor)


def _is_kept_signature(rt: Runtime, document: dict[str, Any], known: _Known) -> bool:
    """Whether a document in another spelling carries the very signature that we keep."""
    if known.row is None or known.row.vc_sha256 is None:
        return False
    kept = canonical.read_document(rt.blobs.get(known.row.vc_sha256)).get("proof")
    theirs = document.get("proof")
    if not isinstance(kept, dict) or not isinstance(theirs, dict):
        return False
    return bool(kept["proofValue"] == theirs.get("proofValue"))


def _what_the_pdf_is(rt: Runtime, pdf: bytes, known: _Known) -> str:
    """Say what a PDF is that is not the one this credential was issued with."""
    if known.row is None or known.row.pdf_sha256 is None or known.is_erased:
        return "the pages are not those that were signed"
    base = rt.blobs.get(known.row.pdf_sha256)[: known.row.base_length]
    return pdf_binding.describe_difference(pdf, base, known.row.token)


def _verified(document: dict[str, Any], judgement: Judgement, known: _Known) -> Verified:
    row = known.row
    if row is None or not verifying.is_open(row):
        return Verified(judgement)
    is_other = known.replaced is not None or judgement.verdict is verification.Verdict.TAMPERED
    original = row.token if is_other else None
    if judgement.checks[0].ok is not True or judgement.verdict is verification.Verdict.UNKNOWN:
        return Verified(judgement, original=original)
    return Verified(judgement, verifying.shown(row, document, judgement, known.successor), original)


def _unreadable(rt: Runtime, content: bytes) -> Verified | None:
    """Judge a file in which no credential can be read; None when nothing in it names one of ours.

    Our PDFs hold the credential uncompressed, so its id is found in what is left of it.
    """
    named = dict.fromkeys(found.group().decode() for found in _URN.finditer(content))
    with rt.database.snapshot() as session:
        rows = [credentials.by_vc_id(session, vc_id) for vc_id in list(named)[:_URNS]]
    ours = [row for row in rows if row is not None and verifying.is_open(row)]
    if not ours:
        return None
    judgement = verification.judge(
        verification.Evidence(
            now=rt.database.now(),
            signature=verification.fails("the credential in the file was changed and cannot be read"),
            is_known_issuer=True,
            issuer=verification.untold("nothing else is believed"),
        )
    )
    return Verified(judgement, original=ours[0].token)
