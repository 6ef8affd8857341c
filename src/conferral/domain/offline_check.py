# SPDX-License-Identifier: Apache-2.0
"""Judge a credential without its issuer's database: by pinned keys and by what lies beside it.

A key that comes with the document proves only that somebody had it. So a did:key shows who signed, and the
issuer stays untold until the caller pins it; silence about the status is never called valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from conferral.domain import canonical, credential_checks, did, verification
from conferral.domain.checkpoint import VerifierKey
from conferral.domain.credential_checks import Keys
from conferral.domain.verification import Evidence, Finding, Judgement, StatusFinding, fails, untold

NO_LIST = StatusFinding(verification.Standing.UNTOLD, "no status list is at hand")


@dataclass(frozen=True)
class Pins:
    """Whom the caller trusts: keys by verification method for each DID, and log keys."""

    issuers: Mapping[str, Keys] = field(default_factory=dict)
    logs: Sequence[VerifierKey] = ()


@dataclass(frozen=True)
class Brought:
    """What was brought together: the credential's bytes, and what lay beside it, believed by nobody yet."""

    credential: bytes
    pdf_digest: Finding | None = None
    status_list: bytes | None = None
    tlog_proof: str | None = None


def pins_of(documents: Sequence[Mapping[str, Any]], logs: Sequence[VerifierKey]) -> Pins:
    """Return the pins of some DID documents and log keys.

    Raises:
        MalformedKey: a document is none.
    """
    return Pins({str(one.get("id", "")): did.assertion_keys(one) for one in documents}, tuple(logs))


def judge(brought: Brought, pins: Pins, now: datetime) -> Judgement:
    """Judge a credential at a time, by pins alone."""
    try:
        document = canonical.read_document(brought.credential)
        stored = canonical.jcs(document)
    except canonical.UnsafeDocument:
        return verification.no_credential(now)
    if "proof" not in document:
        return verification.no_credential(now)
    issuer = credential_checks.issuer_of(document)
    pinned = pins.issuers.get(issuer)
    keys = pinned if pinned is not None else _own_key(document, issuer)
    signature = credential_checks.check_signature(document, keys)
    valid_from = valid_until = None
    if signature.ok:
        try:
            valid_from, valid_until = credential_checks.validity_of(document)
        except canonical.UnsafeDocument as unsafe:
            signature = fails(unsafe.reason)
    return verification.judge(
        Evidence(
            now=now,
            signature=signature,
            is_known_issuer=True,
            issuer=_issuer(document, issuer, pinned),
            status=_status(document, brought.status_list, keys, now),
            valid_from=valid_from,
            valid_until=valid_until,
            anchor=_anchor(stored, brought.tlog_proof, pins),
            pdf_digest=brought.pdf_digest,
        )
    )


def _own_key(document: Mapping[str, Any], issuer: str) -> Keys:
    """Return the key that a did:key issuer is; a key of anybody else shows nothing."""
    keys = credential_checks.did_key_keys(document)
    return {method: key for method, key in keys.items() if method.partition("#")[0] == issuer}


def _issuer(document: Mapping[str, Any], issuer: str, pinned: Keys | None) -> Finding:
    if pinned is None:
        return untold(f"{issuer[:200]} is not pinned: trust it with --did FILE, or in the trust file")
    return credential_checks.check_issuer(document, list(pinned))


def _status(
    document: Mapping[str, Any], status_list: bytes | None, keys: Keys, now: datetime
) -> StatusFinding:
    if status_list is None:
        # Also asked without a list: an issuer that keeps none withdraws nothing.
        return NO_LIST if document.get("credentialStatus") is not None else _unlisted(document, keys, now)
    try:
        found = canonical.read_document(status_list)
    except canonical.UnsafeDocument as unsafe:
        return StatusFinding(verification.Standing.UNTOLD, unsafe.reason)
    return credential_checks.check_status_list(document, found, keys, now)


def _unlisted(document: Mapping[str, Any], keys: Keys, now: datetime) -> StatusFinding:
    return credential_checks.check_status_list(document, {}, keys, now)


def _anchor(stored: bytes, tlog_proof: str | None, pins: Pins) -> Finding:
    if tlog_proof is None:
        return verification.NOT_LOGGED
    return credential_checks.check_anchor(stored, tlog_proof, pins.logs)
