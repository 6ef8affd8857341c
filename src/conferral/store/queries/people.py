# SPDX-License-Identifier: Apache-2.0
"""Members of an organisation, and new passwords."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from conferral.store.records import Record
from conferral.store.tables import members, sessions, users


def members_of(session: Session, organisation_id: str) -> Sequence[Record]:
    """Return (id, email, name, role, created_at) of an organisation's members, oldest first."""
    return session.execute(
        select(users.c.id, users.c.email, users.c.name, members.c.role, users.c.created_at)
        .join(members, members.c.user_id == users.c.id)
        .where(members.c.organisation_id == organisation_id)
        .order_by(users.c.created_at, users.c.id)
    ).all()


def set_password(session: Session, user_id: str, password_hash: str) -> None:
    """Replace a person's password, and sign the person out everywhere."""
    session.execute(update(users).where(users.c.id == user_id).values(password_hash=password_hash))
    session.execute(delete(sessions).where(sessions.c.user_id == user_id))
