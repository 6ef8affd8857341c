# SPDX-License-Identifier: Apache-2.0
"""What a verifier asks the records: by a document's digest, by an erased token, by any key ever used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from conferral.store.records import Record
from conferral.store.tables import (
    credentials,
    erased_tokens,
    leaves,
    revisions,
    signed_documents,
    signing_keys,
)


def leaf_of_entry(session: Session, entry: bytes) -> Record | None:
    """Return the leaf of exactly these signed bytes, with what became of what was signed.

    `state` is that of its credential, `document_id` and `revoked_at` are of a document that other software
    had signed; all are None for an entry whose origin is not known any more.
    """
    documents = signed_documents
    return session.execute(
        select(
            leaves.c.credential_id,
            leaves.c.revision,
            credentials.c.state,
            documents.c.id.label("document_id"),
            documents.c.revoked_at,
        )
        .outerjoin(credentials, credentials.c.id == leaves.c.credential_id)
        .outerjoin(documents, documents.c.entry == leaves.c.entry)
        .where(leaves.c.log.in_(("live", "test")), leaves.c.entry == entry)
        .limit(1)
    ).one_or_none()


def revision_of(session: Session, entry: bytes) -> Record | None:
    """Return the replaced revision that these signed bytes are, with the key that signed it."""
    return session.execute(select(revisions).where(revisions.c.vc_sha256 == entry.hex())).one_or_none()


def every_key(session: Session, organisation_id: str, mode: str) -> Sequence[Record]:
    """Return every key that ever signed, those that were withdrawn as compromised included."""
    return session.execute(
        select(signing_keys.c.number, signing_keys.c.public_key)
        .where(signing_keys.c.organisation_id == organisation_id, signing_keys.c.mode == mode)
        .order_by(signing_keys.c.number)
    ).all()


def is_erased(session: Session, token: str) -> bool:
    """Return whether this was the public token of a credential that was erased since."""
    digest = token_digest(token)
    found = session.execute(
        select(erased_tokens.c.erased_at).where(erased_tokens.c.token_sha256 == digest)
    ).one_or_none()
    return found is not None


def token_digest(token: str) -> bytes:
    """Return what is kept of the public token of an erased credential: its SHA-256."""
    return hashlib.sha256(token.encode("ascii")).digest()
