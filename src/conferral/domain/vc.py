# SPDX-License-Identifier: Apache-2.0
"""The verifiable credential that we issue: Open Badges 3.0 on VC Data Model 2.0.

Everything that identifies a credential is fixed at admission and handed in as `CredentialContent`; building
and signing are pure, so a second attempt yields the same bytes. The unsigned document, its hash and the
stored form are made here and nowhere else. This room must never choose a value (time, id, salt, key).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from conferral.domain.canonical import (
    ISSUED_CONTEXTS,
    Document,
    is_absolute_iri,
    is_signable_text,
    jcs,
)
from conferral.domain.data_integrity import (
    EDDSA_RDFC,
    ProofRefused,
    check_proof,
    hash_to_sign,
    proof_options,
    verify_proof,
)
from conferral.domain.did import base58btc
from conferral.domain.status_list import LIST_LENGTH, PURPOSES
from conferral.domain.tokens import is_public_token

__all__ = [
    "CredentialContent",
    "InvalidContent",
    "ProofRefused",
    "add_proof",
    "build",
    "check_proof",
    "digest_sri",
    "first_moment",
    "hash_to_sign",
    "last_moment",
    "proof_options",
    "sign",
    "stored_form",
    "timestamp",
    "verify_proof",
]

MAX_TEXT_CHARACTERS = 20_000
"""Longest text of one field (a criteria narrative): the document stays far below what verifiers read."""

_UUID_URN = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX_SALT = re.compile(r"[0-9a-f]{32}")
_IDENTITY_HASH = re.compile(r"sha256\$[0-9a-f]{64}")
_SHA384_BYTES = 48
_SIGNATURE_BYTES = 64


class InvalidContent(ValueError):
    """A field cannot stand in a credential; the message names the field and never its value."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


@dataclass(frozen=True, kw_only=True)
class CredentialContent:
    """All that a credential says, fixed in the commit that answered 202. Times are aware UTC.

    Raises:
        InvalidContent: at construction, for a field that would be dropped, refused or unreadable elsewhere.
    """

    vc_id: str
    token: str
    issuer_did: str
    issuer_name: str
    issuer_url: str | None
    valid_from: datetime
    valid_until: datetime | None
    recipient_name: str
    email_salt: str
    email_hash: str
    achievement_id: str
    achievement_name: str
    achievement_description: str
    achievement_criteria: str
    pdf_url: str
    pdf_sha384: bytes
    status_list_url: str
    status_list_index: int
    status_purpose: str
    created: datetime
    verification_method: str
    achievement_type: str = "Certificate"
    subject_id: str | None = None

    def __post_init__(self) -> None:
        _require_texts(self)
        _require_iris(self)
        _require_forms(self)


def build(content: CredentialContent) -> Document:
    """Build the unsigned document, the exact shape that foreign verifiers and the OB schema accept."""
    document: Document = {
        "@context": list(ISSUED_CONTEXTS),
        "id": content.vc_id,
        "type": ["VerifiableCredential", "OpenBadgeCredential"],
        "name": content.achievement_name,
        "issuer": _issuer(content),
        "validFrom": timestamp(content.valid_from),
        "credentialSubject": _subject(content),
        "relatedResource": [
            {
                "id": content.pdf_url,
                "mediaType": "application/pdf",
                "digestSRI": digest_sri(content.pdf_sha384),
            }
        ],
        # One object, never an array: an array, even of one, fails the Open Badges schema.
        "credentialStatus": {
            "id": f"{content.status_list_url}#{content.status_list_index}",
            "type": "BitstringStatusListEntry",
            "statusPurpose": content.status_purpose,
            "statusListIndex": str(content.status_list_index),
            "statusListCredential": content.status_list_url,
        },
    }
    if content.valid_until is not None:
        document["validUntil"] = timestamp(content.valid_until)
    return document


def add_proof(document: Document, options: Document, signature: bytes) -> Document:
    """Return the document with its proof: the options without their context, and `proofValue`."""
    if len(signature) != _SIGNATURE_BYTES:
        raise ValueError("an Ed25519 signature has 64 bytes")
    proof = {key: value for key, value in options.items() if key != "@context"}
    proof["proofValue"] = "z" + base58btc(signature)
    return {**document, "proof": proof}


def sign(
    document: Document, *, sign: Callable[[bytes], bytes], verification_method: str, created: datetime
) -> Document:
    """Sign any document of ours with eddsa-rdfc-2022; the same input gives the same bytes.

    Args:
        document: unsigned, with vendored contexts.
        sign: Ed25519 over the 64 bytes it is given.
        verification_method: the key's URL, as published in the issuer's DID document.
        created: fixed at admission, never now.

    Raises:
        UnsafeDocument: the signature would not cover everything.
    """
    options = proof_options(
        EDDSA_RDFC, verification_method=verification_method, created=timestamp(created), document=document
    )
    return add_proof(document, options, sign(hash_to_sign(document, options)))


def stored_form(signed: Document) -> bytes:
    """Return the bytes that are the credential: JCS, UTF-8, no newline. Their SHA-256 is the log entry."""
    return jcs(signed)


def timestamp(moment: datetime) -> str:
    """Write an aware time as `YYYY-MM-DDTHH:MM:SSZ`, whole seconds."""
    if moment.tzinfo is None:
        raise ValueError("times are aware UTC")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def first_moment(day: date) -> datetime:
    """Return when a credential issued on a day becomes valid: its first second, UTC."""
    return datetime.combine(day, time(0, 0, 0), UTC)


def last_moment(day: date) -> datetime:
    """Return when a credential whose last valid day this is ends: its last second, UTC."""
    return datetime.combine(day, time(23, 59, 59), UTC)


def digest_sri(sha384: bytes) -> str:
    """Write a SHA-384 digest as Subresource Integrity: `sha384-<base64>`."""
    return "sha384-" + base64.b64encode(sha384).decode("ascii")


def _issuer(content: CredentialContent) -> Document:
    issuer: Document = {"id": content.issuer_did, "type": ["Profile"], "name": content.issuer_name}
    if content.issuer_url is not None:
        issuer["url"] = content.issuer_url
    return issuer


def _subject(content: CredentialContent) -> Document:
    subject: Document = {
        "type": ["AchievementSubject"],
        "identifier": [
            {
                "type": "IdentityObject",
                "identityType": "emailAddress",
                "hashed": True,
                "identityHash": content.email_hash,
                "salt": content.email_salt,
            },
            {
                "type": "IdentityObject",
                "identityType": "name",
                "hashed": False,
                "identityHash": content.recipient_name,
            },
        ],
        "achievement": {
            "id": content.achievement_id,
            "type": ["Achievement"],
            "achievementType": content.achievement_type,
            "name": content.achievement_name,
            "description": content.achievement_description,
            "criteria": {"narrative": content.achievement_criteria},
        },
    }
    if content.subject_id is not None:
        subject["id"] = content.subject_id
    return subject


def _require_texts(content: CredentialContent) -> None:
    for field in (
        "issuer_name",
        "recipient_name",
        "achievement_name",
        "achievement_description",
        "achievement_criteria",
        "achievement_type",
    ):
        text: str = getattr(content, field)
        if not text.strip():
            raise InvalidContent(field, "must not be empty")
        if len(text) > MAX_TEXT_CHARACTERS:
            raise InvalidContent(field, f"is longer than {MAX_TEXT_CHARACTERS} characters")
        if not is_signable_text(text):
            raise InvalidContent(field, "holds a control character")


def _require_iris(content: CredentialContent) -> None:
    for field in (
        "issuer_did",
        "issuer_url",
        "pdf_url",
        "status_list_url",
        "verification_method",
        "achievement_id",
        "subject_id",
    ):
        value: Any = getattr(content, field)
        if value is not None and not is_absolute_iri(value):
            raise InvalidContent(field, "is not an absolute IRI")
    if content.verification_method.partition("#")[0] != content.issuer_did:
        raise InvalidContent("verification_method", "belongs to another issuer")


def _require_forms(content: CredentialContent) -> None:
    forms: tuple[tuple[str, bool, str], ...] = (
        ("vc_id", bool(_UUID_URN.fullmatch(content.vc_id)), "is not urn:uuid:<uuid>"),
        ("token", is_public_token(content.token), "is not a public token"),
        ("pdf_url", content.token in content.pdf_url, "does not hold the credential's token"),
        ("pdf_sha384", len(content.pdf_sha384) == _SHA384_BYTES, "is not a SHA-384 digest"),
        ("email_salt", bool(_HEX_SALT.fullmatch(content.email_salt)), "is not 32 hex digits"),
        ("email_hash", bool(_IDENTITY_HASH.fullmatch(content.email_hash)), "is not sha256$<hex>"),
        ("status_list_index", 0 <= content.status_list_index < LIST_LENGTH, "is outside the list"),
        ("status_purpose", content.status_purpose in PURPOSES, "is not revocation or suspension"),
        ("valid_from", content.valid_from.tzinfo is not None, "is not an aware time"),
        ("created", content.created.tzinfo is not None, "is not an aware time"),
    )
    for field, is_sound, reason in forms:
        if not is_sound:
            raise InvalidContent(field, reason)
    if content.valid_until is not None and content.valid_until <= content.valid_from:
        raise InvalidContent("valid_until", "is not after valid_from")
