# SPDX-License-Identifier: Apache-2.0
"""Findings that can be computed from documents and pinned keys alone.

Used by everything that verifies: our page on stored bytes, the command line on a bundle, the VC-API on
foreign documents. Keys are always handed in; a key named by the document proves only that somebody had it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from conferral.domain.canonical import UnsafeDocument, read_document
from conferral.domain.checkpoint import CheckpointRefused, NotPinned, VerifierKey, verify_tlog_proof
from conferral.domain.data_integrity import ASSERTION, ProofRefused, check_proof, read_proof
from conferral.domain.did import MalformedKey, public_key_of_did_key
from conferral.domain.status_list import MalformedStatusList, decode_list, is_set, status_entry
from conferral.domain.vc import timestamp
from conferral.domain.verification import (
    Finding,
    Standing,
    StatusFinding,
    fails,
    holds,
    untold,
)

Keys = Mapping[str, bytes]
"""Public keys by the URL of their verification method, as `did.assertion_keys` returns them."""


def issuer_of(document: Mapping[str, Any]) -> str:
    """Return the issuer's DID, or an empty text."""
    issuer = document.get("issuer")
    identifier = issuer.get("id") if isinstance(issuer, dict) else issuer
    return identifier if isinstance(identifier, str) else ""


def method_of(document: Mapping[str, Any], *, purpose: str = ASSERTION) -> str:
    """Return the verification method that the proof names, or an empty text."""
    try:
        return str(read_proof(document, purpose=purpose)["verificationMethod"])
    except ProofRefused:
        return ""


def check_signature(document: Mapping[str, Any], keys: Keys, *, purpose: str = ASSERTION) -> Finding:
    """Check the proof with the named key, if it is one of those that the caller trusts.

    Returns:
        True; false with the reason; null when the named key is not among `keys`.
    """
    try:
        method = str(read_proof(document, purpose=purpose)["verificationMethod"])
        if method not in keys:
            return untold("the key that the proof names is not known")
        check_proof(document, keys[method], purpose=purpose)
    except ProofRefused as refused:
        return fails(str(refused))
    return holds(method)


def check_stored_bytes(stored: bytes, keys: Keys) -> Finding:
    """Check the signature of a credential as we store it (JCS bytes)."""
    try:
        return check_signature(read_document(stored), keys)
    except UnsafeDocument as unsafe:
        return fails(unsafe.reason)


def check_issuer(document: Mapping[str, Any], assertion_methods: Sequence[str]) -> Finding:
    """Check that the proof's key is one its issuer allows for assertions, and that the issuer is its DID.

    Args:
        document: signed.
        assertion_methods: of the issuer's DID document, without keys withdrawn as compromised.
    """
    method, issuer = method_of(document), issuer_of(document)
    did = method.partition("#")[0]
    if not did or did != issuer:
        return fails("the key belongs to somebody else than the issuer")
    if method not in assertion_methods:
        return fails("the issuer does not allow this key, or withdrew it")
    if did.startswith("did:web:"):
        return holds(did.removeprefix("did:web:").split(":")[0].replace("%3A", ":"))
    return holds(did)


def did_key_keys(document: Mapping[str, Any], *, purpose: str = ASSERTION) -> dict[str, bytes]:
    """Return the key of a did:key issuer, which is its own DID document. Shows authorship, not identity."""
    method = method_of(document, purpose=purpose)
    try:
        return {method: public_key_of_did_key(method)}
    except MalformedKey:
        return {}


def check_status_list(
    credential: Mapping[str, Any], status_list: Mapping[str, Any], keys: Keys, now: datetime
) -> StatusFinding:
    """Read a credential's bit from a signed status list; anything doubtful about the list is untold.

    The list must be signed by the credential's issuer, name itself as the entry does, be in date, have the
    entry's purpose, and be long enough.
    """
    try:
        entry = status_entry(credential)
        if entry is None:
            return StatusFinding(Standing.IN_FORCE, "the issuer keeps no status")
        problem = next(_list_problems(credential, status_list, keys, now), "")
        if problem:
            return StatusFinding(Standing.UNTOLD, problem)
        bits = decode_list(str(status_list["credentialSubject"].get("encodedList", "")))
        is_bit_set = is_set(bits, int(entry["statusListIndex"]))
    except MalformedStatusList as malformed:
        return StatusFinding(Standing.UNTOLD, str(malformed))
    if not is_bit_set:
        return StatusFinding(
            Standing.IN_FORCE, f"not withdrawn in the list of {status_list.get('validFrom')}"
        )
    is_suspension = entry.get("statusPurpose") == "suspension"
    return StatusFinding(Standing.SUSPENDED if is_suspension else Standing.REVOKED, "the list says so")


def check_anchor(stored: bytes, tlog_proof: str, keys: Sequence[VerifierKey]) -> Finding:
    """Check that the stored bytes stand in the log of a pinned key."""
    try:
        index, checkpoint = verify_tlog_proof(tlog_proof, log_entry(stored), keys)
    except NotPinned as unpinned:
        return untold(str(unpinned))
    except CheckpointRefused as refused:
        return fails(str(refused))
    return holds(f"entry {index} of {checkpoint.size} in {checkpoint.origin}")


def log_entry(stored: bytes) -> bytes:
    """Return the log entry of a credential: SHA-256 of its stored form."""
    return hashlib.sha256(stored).digest()


def validity_of(document: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    """Return validFrom and validUntil of a document (VC 1.1: issuanceDate and expirationDate).

    Raises:
        UnsafeDocument: a date that cannot be read; it must not pass for "does not end".
    """
    begins = document.get("validFrom", document.get("issuanceDate"))
    ends = document.get("validUntil", document.get("expirationDate"))
    return _moment(begins), _moment(ends)


def _list_problems(
    credential: Mapping[str, Any], status_list: Mapping[str, Any], keys: Keys, now: datetime
) -> Iterator[str]:
    """Yield why a list says nothing about a credential; nothing when it may be read."""
    entry = status_entry(credential) or {}
    subject = status_list.get("credentialSubject")
    subject = subject if isinstance(subject, dict) else {}
    types = status_list.get("type")
    if not isinstance(types, list) or "BitstringStatusListCredential" not in types:
        yield "the status list is of another type"
    if subject.get("type") != "BitstringStatusList":
        yield "the status list holds no list"
    if status_list.get("id") != entry.get("statusListCredential"):
        yield "the status list is not the one that the credential names"
    if subject.get("statusPurpose") != entry.get("statusPurpose"):
        yield "the status list serves another purpose"
    if issuer_of(status_list) != issuer_of(credential):
        yield "the status list is of another issuer"
    if not check_signature(status_list, keys).ok or not check_issuer(status_list, list(keys)).ok:
        yield "the status list is not signed by the issuer"
    try:
        begins, ends = validity_of(status_list)
    except UnsafeDocument as unsafe:
        yield unsafe.reason
        return
    if (ends is not None and now > ends) or (begins is not None and now < begins):
        yield f"the status list is not in date at {timestamp(now)}"


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise UnsafeDocument("a date of the document cannot be read")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
