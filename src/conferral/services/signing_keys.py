# SPDX-License-Identifier: Apache-2.0
"""An organisation's identity as an issuer: its DID and the key it signs with.

Keys are made and opened only where the master key is (issuance and anchoring workers); the
web only ever reads public halves. How a key is replaced is `rotating_keys`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

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


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A public key of an issuer, with what became of it.

    Attributes:
        id: `sgk_…`.
        number: 1, 2, … within its issuer: `k1`, `k2`.
        verification_method: the name by which proofs name it.
        retired_at: since when it signs no longer; None for the current one.
        withdrawn_at: when it left the DID document; only a compromised key does.
        compromised_at: since when others may have signed with it.
    """

    id: str
    number: int
    public_key: bytes
    verification_method: str
    created_at: datetime
    retired_at: datetime | None
    withdrawn_at: datetime | None
    compromised_at: datetime | None

    @property
    def is_withdrawn(self) -> bool:
        """Whether its signatures prove nothing any more."""
        return self.withdrawn_at is not None

    @property
    def state(self) -> str:
        """Return `current`, `retired` or `withdrawn`."""
        if self.is_withdrawn:
            return "withdrawn"
        return "retired" if self.retired_at is not None else "current"


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
        key = _make_first_key(rt, organisation_id, mode)
    if frozen is None:
        frozen = _freeze(rt, organisation_id, mode)
    opened = keyring.signer(key.id, organisation_id, key.sealed_private)
    method = did.verification_method(frozen, did.PublishedKey(key.number, key.public_key))
    return Issuer(frozen, method, key.public_key, opened.sign)


def published(rt: Runtime, organisation_id: str, mode: str) -> dict[str, bytes]:
    """Return the verification methods that the DID document lists; {} before the first signature.

    Withdrawn keys are not among them: what strangers must not believe, this does not return.
    """
    return {
        key.verification_method: key.public_key
        for key in known(rt, organisation_id, mode).values()
        if not key.is_withdrawn
    }


def ever_published(rt: Runtime, organisation_id: str, mode: str) -> dict[str, bytes]:
    """Return the public key of every method an issuer ever had: for bytes that our own rows name.

    Who has a withdrawn key cannot write our rows, so what they name is ours until it is signed again.
    """
    found = known(rt, organisation_id, mode)
    return {method: key.public_key for method, key in found.items()}


def known(rt: Runtime, organisation_id: str, mode: str) -> dict[str, KnownKey]:
    """Return every key an issuer ever had by its verification method, the withdrawn ones, too.

    With a withdrawn key alone nothing is proven. Bytes that were recorded before the withdrawal (a
    credential's row, its `revisions`, a leaf) are still ours: key and record together prove that.
    """
    with rt.database.snapshot() as session:
        return {key.verification_method: key for key in keys_of(session, organisation_id, mode)}


def keys_of(session: Session, organisation_id: str, mode: str) -> list[KnownKey]:
    """Return every key an issuer ever had, oldest first; [] before its DID is frozen."""
    frozen = issuers.issuer_did(session, organisation_id, mode)
    if frozen is None:
        return []
    return [_known(frozen, row) for row in issuers.every_key(session, organisation_id, mode)]


def did_document(rt: Runtime, slug: str) -> dict[str, object] | None:
    """Return the DID document of a live organisation, or None if it has no did:web."""
    with rt.database.snapshot() as session:
        organisation = tenancy.organisation_by_slug(session, slug)
        if organisation is None:
            return None
        frozen = issuers.issuer_did(session, organisation.id, "live")
        document = document_of(session, organisation.id, "live")
    return document if frozen is not None and frozen.startswith("did:web:") else None


def document_of(session: Session, organisation_id: str, mode: str) -> dict[str, object] | None:
    """Return the DID document of an issuer, also of a did:key; None before its DID is frozen."""
    frozen = issuers.issuer_did(session, organisation_id, mode)
    if frozen is None:
        return None
    rows = issuers.published_keys(session, organisation_id, mode)
    return did.did_document(frozen, [did.PublishedKey(row.number, row.public_key) for row in rows])


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A key that was just made: sealed, and seen to open again under the master key."""

    id: str
    public_key: bytes
    sealed_private: bytes


def make_key(rt: Runtime, organisation_id: str) -> FreshKey:
    """Make a key and seal it to its id and organisation; nothing is stored yet.

    Raises:
        Retryable: `signing_key_unavailable` in a process without the master key.
    """
    keyring = rt.need_keyring()
    private, public = signer.generate_key()
    key_id = rt.new_id("sgk")
    sealed = keyring.seal(key_id, organisation_id, private)
    # Opened before it is relied on: the key that it replaces is destroyed in the commit that stores it.
    if keyring.signer(key_id, organisation_id, sealed).public_key != public:
        raise Permanent("internal", f"signing key {key_id} does not match its public half")
    return FreshKey(key_id, public, sealed)


def add_key(
    session: Session, organisation_id: str, mode: str, number: int, *, made: FreshKey, now: datetime
) -> None:
    """Insert a made key as the current one, unless there is one."""
    issuers.add_key(
        session,
        id=made.id,
        organisation_id=organisation_id,
        mode=mode,
        number=number,
        public_key=made.public_key,
        sealed_private=made.sealed_private,
        created_at=now,
    )


def _make_first_key(rt: Runtime, organisation_id: str, mode: str) -> Record:
    made = make_key(rt, organisation_id)
    with rt.database.transaction() as session:
        add_key(session, organisation_id, mode, 1, made=made, now=rt.database.now())
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


def _known(frozen: str, row: Record) -> KnownKey:
    return KnownKey(
        id=row.id,
        number=row.number,
        public_key=row.public_key,
        verification_method=did.verification_method(frozen, did.PublishedKey(row.number, row.public_key)),
        created_at=row.created_at,
        retired_at=row.retired_at,
        withdrawn_at=row.withdrawn_at,
        compromised_at=row.compromised_at,
    )
