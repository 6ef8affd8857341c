# SPDX-License-Identifier: Apache-2.0
"""Organisations, people, sessions and API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from conferral.store.records import Record
from conferral.store.tables import api_keys, members, organisations, sessions, users

USED_AT_PRECISION = timedelta(minutes=1)  # a busy key must not become a hot row


# Built once: building a statement costs as much as executing it, and this one stands in every request.
_KEY_BY_HANDLE = (
    select(api_keys, organisations.c.suspended)
    .join(organisations, organisations.c.id == api_keys.c.organisation_id)
    .where(api_keys.c.handle == bindparam("handle"))
)


def add_organisation(session: Session, **values: Any) -> None:
    """Insert an organisation."""
    session.execute(insert(organisations).values(**values))


def organisation(session: Session, organisation_id: str) -> Record | None:
    """Return an organisation by id."""
    return session.execute(select(organisations).where(organisations.c.id == organisation_id)).one_or_none()


def organisation_by_slug(session: Session, slug: str) -> Record | None:
    """Return an organisation by its slug."""
    return session.execute(select(organisations).where(organisations.c.slug == slug)).one_or_none()


def all_organisations(session: Session) -> Sequence[Record]:
    """Return every organisation, oldest first; for operators and periodic work."""
    return session.execute(
        select(organisations).order_by(organisations.c.created_at, organisations.c.id)
    ).all()


def add_user(session: Session, **values: Any) -> None:
    """Insert a person who may sign in."""
    session.execute(insert(users).values(**values))


def user_by_email(session: Session, email: str) -> Record | None:
    """Return a person by address."""
    return session.execute(select(users).where(users.c.email == email)).one_or_none()


def add_member(session: Session, organisation_id: str, user_id: str, role: str) -> None:
    """Make a person a member of an organisation."""
    session.execute(insert(members).values(organisation_id=organisation_id, user_id=user_id, role=role))


def memberships(session: Session, user_id: str) -> Sequence[Record]:
    """Return (organisation id, name, slug, role) of every organisation a person belongs to."""
    return session.execute(
        select(organisations.c.id, organisations.c.name, organisations.c.slug, members.c.role)
        .join(members, members.c.organisation_id == organisations.c.id)
        .where(members.c.user_id == user_id)
        .order_by(organisations.c.created_at, organisations.c.id)
    ).all()


def owners(session: Session, organisation_id: str) -> Sequence[Record]:
    """Return (id, email, name) of an organisation's owners."""
    return session.execute(
        select(users.c.id, users.c.email, users.c.name)
        .join(members, members.c.user_id == users.c.id)
        .where(members.c.organisation_id == organisation_id, members.c.role == "owner")
        .order_by(users.c.created_at)
    ).all()


def add_session(session: Session, **values: Any) -> None:
    """Insert a signed-in session."""
    session.execute(insert(sessions).values(**values))


def live_session(session: Session, digest: bytes, now: datetime) -> Record | None:
    """Return a session and its person, unless it has expired."""
    return session.execute(
        select(sessions.c.csrf, sessions.c.expires_at, users.c.id, users.c.email, users.c.name)
        .join(users, users.c.id == sessions.c.user_id)
        .where(sessions.c.digest == digest, sessions.c.expires_at > now)
    ).one_or_none()


def end_session(session: Session, digest: bytes) -> None:
    """Sign out."""
    session.execute(delete(sessions).where(sessions.c.digest == digest))


def purge_sessions(session: Session, now: datetime) -> int:
    """Delete expired sessions; return how many."""
    deleted = session.execute(delete(sessions).where(sessions.c.expires_at <= now))
    return int(deleted.rowcount)  # type: ignore[attr-defined]  # CursorResult, by construction


def add_api_key(session: Session, **values: Any) -> None:
    """Insert an API key."""
    session.execute(insert(api_keys).values(**values))


def api_key_by_handle(session: Session, handle: str) -> Record | None:
    """Return a key, with whether its organisation is suspended."""
    return session.execute(_KEY_BY_HANDLE, {"handle": handle}).one_or_none()


def api_keys_of(session: Session, organisation_id: str) -> Sequence[Record]:
    """Return an organisation's keys, oldest first."""
    return session.execute(
        select(api_keys)
        .where(api_keys.c.organisation_id == organisation_id)
        .order_by(api_keys.c.created_at, api_keys.c.id)
    ).all()


def mark_api_key_used(session: Session, key_id: str, now: datetime) -> None:
    """Record the use of a key."""
    session.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now))


def revoke_api_key(session: Session, organisation_id: str, key_id: str, now: datetime) -> bool:
    """Revoke a key; False if there is none to revoke."""
    moved = session.execute(
        update(api_keys)
        .where(
            api_keys.c.id == key_id,
            api_keys.c.organisation_id == organisation_id,
            api_keys.c.revoked_at.is_(None),
        )
        .values(revoked_at=now)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction
