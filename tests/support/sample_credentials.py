# SPDX-License-Identifier: Apache-2.0
"""Fresh credentials for tests: an issuer with a key of its own, and documents that it signed."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from conferral.adapters.signer import Signer, generate_key
from conferral.domain import did, status_list, vc
from conferral.domain.identity import identity_hash
from conferral.domain.tokens import public_token

CREATED = datetime(2026, 1, 1, 9, 0, 0, tzinfo=UTC)
PUBLIC_URL = "https://creds.example.org"
LIST_URL = f"{PUBLIC_URL}/status/7"
SALT = "0f" * 16
TOKEN = public_token(bytes(range(16)))


@dataclasses.dataclass(frozen=True)
class Issuer:
    """An organisation with one key."""

    did: str
    signer: Signer
    number: int = 1

    @property
    def key(self) -> did.PublishedKey:
        """The key as it is published."""
        return did.PublishedKey(self.number, self.signer.public_key)

    @property
    def method(self) -> str:
        """The URL that proofs name the key by."""
        return did.verification_method(self.did, self.key)

    @property
    def keys(self) -> dict[str, bytes]:
        """What a verifier that trusts this issuer holds."""
        return {self.method: self.signer.public_key}

    @property
    def document(self) -> dict[str, Any]:
        """The DID document."""
        return did.did_document(self.did, [self.key])

    def sign(self, document: dict[str, Any]) -> dict[str, Any]:
        """Sign a document at the usual time."""
        return vc.sign(document, sign=self.signer.sign, verification_method=self.method, created=CREATED)


def web_issuer(slug: str = "acme") -> Issuer:
    """Make a did:web issuer with a new key."""
    return Issuer(did.did_web(PUBLIC_URL, slug), Signer(generate_key()[0]))


def key_issuer() -> Issuer:
    """Make a did:key issuer with a new key."""
    signer = Signer(generate_key()[0])
    return Issuer(did.did_key(signer.public_key), signer)


def content(issuer: Issuer, **changes: Any) -> vc.CredentialContent:
    """Return the content of a sound credential, changed as asked."""
    fields: dict[str, Any] = {
        "vc_id": f"urn:uuid:{uuid.uuid4()}",
        "token": TOKEN,
        "issuer_did": issuer.did,
        "issuer_name": "Acme University",
        "issuer_url": "https://acme.example",
        "valid_from": vc.first_moment(date(2026, 1, 1)),
        "valid_until": vc.last_moment(date(2099, 1, 1)),
        "recipient_name": "Ada Lovelace",
        "email_salt": SALT,
        "email_hash": identity_hash("ada@example.com", SALT),
        "achievement_id": "urn:uuid:6b1b36c4-9d9e-4d0e-a5b9-7e2f3f2f4a11",
        "achievement_name": "Applied Statistics",
        "achievement_description": "Sampling, inference and regression.",
        "achievement_criteria": "Passed the written examination.",
        "pdf_url": f"{PUBLIC_URL}/c/{TOKEN}/base.pdf",
        "pdf_sha384": hashlib.sha384(b"%PDF").digest(),
        "status_list_url": LIST_URL,
        "status_list_index": 4711,
        "status_purpose": "revocation",
        "created": CREATED,
        "verification_method": issuer.method,
    }
    return vc.CredentialContent(**{**fields, **changes})


def credential(issuer: Issuer, **changes: Any) -> dict[str, Any]:
    """Return a freshly signed credential."""
    return issuer.sign(vc.build(content(issuer, **changes)))


def signed_list(
    issuer: Issuer, set_indices: Iterable[int] = (), /, *, purpose: str = "revocation", **changes: Any
) -> dict[str, Any]:
    """Return a freshly signed status list, in date from now; `changes` replace members before signing."""
    document = status_list.build(
        url=LIST_URL,
        issuer_did=issuer.did,
        purpose=purpose,
        set_indices=set_indices,
        signed_at=datetime.now(UTC),
    )
    return issuer.sign({**document, **changes})
