# SPDX-License-Identifier: Apache-2.0
"""Credentials that are signed again: which, what they were before, and the move to the next revision.

The meaning of a row of `revisions` stands beside the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import exists, insert, select, update
from sqlalchemy.orm import Session

from conferral.domain import credential
from conferral.store.records import Record
from conferral.store.tables import credentials, leaves, revisions

LIVE: Final = (credential.ISSUED, credential.SUSPENDED)
"""Who is signed again: what is in force, or may be again."""


def signed_under(
    session: Session, owner: tuple[str, str], methods: Sequence[str], *, after: str, limit: int
) -> Sequence[Record]:
    """Return live credentials of an (organisation, mode) signed by one of these methods, in order of id.

    Args:
        session: a snapshot.
        owner: organisation id and mode.
        methods: verification methods, as the proofs name them.
        after: the id to go on behind; empty for the beginning.
        limit: at most so many.
    """
    organisation_id, mode = owner
    return session.execute(
        select(
            credentials.c.id,
            credentials.c.mode,
            credentials.c.revision,
            credentials.c.base_length,
            credentials.c.base_sha384,
            credentials.c.pdf_sha256,
            credentials.c.vc_sha256,
            credentials.c.verification_method,
        )
        .where(
            credentials.c.organisation_id == organisation_id,
            credentials.c.mode == mode,
            credentials.c.state.in_(LIVE),
            credentials.c.verification_method.in_(methods),
            credentials.c.id > after,
        )
        .order_by(credentials.c.id)
        .limit(limit)
    ).all()


def is_being_issued(session: Session, owner: tuple[str, str], methods: Sequence[str]) -> bool:
    """Return whether a credential signed by one of these methods still waits for its place in the log."""
    organisation_id, mode = owner
    found: bool = session.execute(
        select(
            exists().where(
                credentials.c.organisation_id == organisation_id,
                credentials.c.mode == mode,
                credentials.c.state == credential.ISSUING,
                credentials.c.verification_method.in_(methods),
            )
        )
    ).scalar_one()
    return found


def advance(session: Session, credential_id: str, *, from_revision: int, **values: Any) -> bool:
    """Move a live credential to its next revision; False if somebody did, or it is live no longer."""
    moved = session.execute(
        update(credentials)
        .where(
            credentials.c.id == credential_id,
            credentials.c.revision == from_revision,
            credentials.c.state.in_(LIVE),
        )
        .values(revision=from_revision + 1, **values)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def told(session: Session, ids: Sequence[str]) -> Sequence[Record]:
    """Return what mails and events are made of, for credentials as they are now."""
    return session.execute(
        select(
            credentials.c.id.label("credential_id"),
            credentials.c.organisation_id,
            credentials.c.mode,
            credentials.c.state,
            credentials.c.revision,
            credentials.c.token,
            credentials.c.batch_id,
            credentials.c.external_id,
            credentials.c.send_email,
            credentials.c.recipient_email,
            credentials.c.recipient_locale,
        )
        .where(credentials.c.id.in_(ids))
        .order_by(credentials.c.id)
    ).all()


def keep(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Insert what credentials were signed as before, in the commit that replaces it."""
    if rows:
        session.execute(insert(revisions), list(rows))


def append_leaves(session: Session, rows: Sequence[dict[str, Any]], now: datetime) -> None:
    """Insert the leaves of new revisions without an index; the sequencer gives them theirs."""
    if rows:
        session.execute(insert(leaves), [row | {"created_at": now} for row in rows])


def of_credential(session: Session, credential_id: str) -> Sequence[Record]:
    """Return the replaced revisions of a credential, oldest first."""
    return session.execute(
        select(revisions).where(revisions.c.credential_id == credential_id).order_by(revisions.c.revision)
    ).all()


def by_digest(session: Session, vc_sha256: str) -> Record | None:
    """Return the replaced revision that has exactly these bytes (SHA-256, hex)."""
    return session.execute(select(revisions).where(revisions.c.vc_sha256 == vc_sha256)).one_or_none()


def leaves_of(
    session: Session, owner: tuple[str, str], *, after: int, before: int, limit: int
) -> Sequence[Record]:
    """Return (credential_id, revision, leaf_index) of an issuer's leaves in the log, in its order.

    Args:
        session: a snapshot.
        owner: organisation id and mode.
        after: the index to go on behind; -1 for the beginning.
        before: the size of the checkpoint that proves them.
        limit: at most so many.
    """
    organisation_id, mode = owner
    return session.execute(
        select(leaves.c.credential_id, leaves.c.revision, leaves.c.leaf_index)
        .join(credentials, credentials.c.id == leaves.c.credential_id)
        .where(
            leaves.c.log == mode,
            leaves.c.leaf_index > after,
            leaves.c.leaf_index < before,
            credentials.c.organisation_id == organisation_id,
        )
        .order_by(leaves.c.leaf_index)
        .limit(limit)
    ).all()
