# SPDX-License-Identifier: Apache-2.0
"""An organisation's identity as an issuer: its DID and the key it signs with.

Keys are made and opened only where the master key is (issuance and anchoring workers); the
web only ever reads public halves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conferral.adapters import signer
from conferral.domain import did
from conferral.reliable.errors import Permanent
from conferral.services.runtime import Runtime
from conferral.store.queries import issuers, tenancy
from conferral.store.records import Record


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs, under which method, with which key."""

    did: str
    verification_method: str
    public_key: bytes
    sign: Callable[[bytes], bytes]


def issuer(rt: Runtime, organisation_id: str, mode: str) -> Issuer:
    """Return the issuer of an organisation and mode; the first use makes its key and freezes its DID.

    Raises:
        Retryable: `signing_key_unavailable` in a process without the master key, or with the
            wrong one.
    """
    keyring = rt.need_keyring()
    with rt.database.snapshot() as session:
        key = issuers.current_key(session, organisation_id, mode)
        frozen = issuers.issuer_did(session, organisation_id, mode)
    if key is None:
        key = _make_key(rt, organisation_id, mode)
    if frozen is None:
        frozen = _freeze(rt, organisation_id, mode)
    opened = keyring.signer(key.id, organisation_id, key.sealed_private)
    method = did.verification_method(frozen, did.PublishedKey(key.number, key.public_key))
    return Issuer(frozen, method, key.public_key, opened.sign)


def published(rt: Runtime, organisation_id: str, mode: str) -> dict[str, bytes]:
    """Return every verification method of an issuer with its public key; {} before the first signature."""
    with rt.database.snapshot() as session:
        frozen = issuers.issuer_did(session, organisation_id, mode)
        rows = issuers.published_keys(session, organisation_id, mode)
    if frozen is None:
        return {}
    keys = [did.PublishedKey(row.number, row.public_key) for row in rows]
    return {did.verification_method(frozen, key): key.public_key for key in keys}


def did_document(rt: Runtime, slug: str) -> dict[str, object] | None:
    """Return the DID document of a live organisation, or None if it has no did:web."""
    with rt.database.snapshot() as session:
        organisation = tenancy.organisation_by_slug(session, slug)
        if organisation is None:
            return None
        frozen = issuers.issuer_did(session, organisation.id, "live")
        rows = issuers.published_keys(session, organisation.id, "live")
    if frozen is None or not frozen.startswith("did:web:"):
        return None
    return did.did_document(frozen, [did.PublishedKey(row.number, row.public_key) for row in rows])


def _make_key(rt: Runtime, organisation_id: str, mode: str) -> Record:
    private, public = signer.generate_key()
    key_id = rt.new_id("sgk")
    sealed = rt.need_keyring().seal(key_id, organisation_id, private)
    with rt.database.transaction() as session:
        issuers.add_key(
            session,
            id=key_id,
            organisation_id=organisation_id,
            mode=mode,
            number=1,
            public_key=public,
            sealed_private=sealed,
            created_at=rt.database.now(),
        )
        # Somebody may have been faster: the first key is everybody's.
        key = issuers.current_key(session, organisation_id, mode)
    if key is None:
        raise Permanent("signing_key_revoked", f"organisation {organisation_id} has no {mode} signing key")
    return key


def _freeze(rt: Runtime, organisation_id: str, mode: str) -> str:
    with rt.database.transaction() as session:
        organisation = tenancy.organisation(session, organisation_id)
        first = issuers.published_keys(session, organisation_id, mode)[0]
        if organisation is None:
            raise Permanent("not_found", f"there is no organisation {organisation_id}")
        chosen = did.issuer_did(rt.public_url, organisation.slug, first.public_key, mode)
        return issuers.freeze_did(session, organisation_id, mode, chosen, rt.database.now())
