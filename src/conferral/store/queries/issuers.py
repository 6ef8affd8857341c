# SPDX-License-Identifier: Apache-2.0
"""An organisation's DID, signing keys and templates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Select, bindparam, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or  # compiles for SQLite, too
from sqlalchemy.orm import Session

from conferral.reliable.tables import UtcDateTime
from conferral.store.records import Record
from conferral.store.tables import issuers, signing_keys, status_lists, template_versions, templates


def current_key(session: Session, organisation_id: str, mode: str) -> Record | None:
    """Return the signing key that is not retired; at most one is, by a unique index."""
    return session.execute(_CURRENT_KEY, {"organisation_id": organisation_id, "mode": mode}).one_or_none()


def published_keys(session: Session, organisation_id: str, mode: str) -> Sequence[Record]:
    """Return every key ever used that was not withdrawn; old signatures stay valid by them."""
    return session.execute(_keys_of(organisation_id, mode).where(signing_keys.c.withdrawn_at.is_(None))).all()


def every_key(session: Session, organisation_id: str, mode: str) -> Sequence[Record]:
    """Return every key ever used, the withdrawn ones, too, oldest first."""
    return session.execute(_keys_of(organisation_id, mode)).all()


def key(session: Session, key_id: str) -> Record | None:
    """Return one signing key."""
    return session.execute(select(signing_keys).where(signing_keys.c.id == key_id)).one_or_none()


def _keys_of(organisation_id: str | BindParameter[str], mode: str | BindParameter[str]) -> Select[Any]:
    return (
        select(signing_keys)
        .where(signing_keys.c.organisation_id == organisation_id, signing_keys.c.mode == mode)
        .order_by(signing_keys.c.number)
    )


# Built once: every credential that is signed asks for key and DID, and building costs more than executing.
_CURRENT_KEY = _keys_of(bindparam("organisation_id"), bindparam("mode")).where(
    signing_keys.c.retired_at.is_(None)
)
_DID = select(issuers.c.did).where(
    issuers.c.organisation_id == bindparam("organisation_id"), issuers.c.mode == bindparam("mode")
)


def add_key(session: Session, **values: Any) -> None:
    """Insert a signing key unless somebody faster took its number or the place of the current key."""
    # Without a target: the two unique indices may both object.
    session.execute(insert_or(signing_keys).values(**values).on_conflict_do_nothing())


def retire_key(session: Session, key_id: str, now: datetime) -> bool:
    """Retire a current key and destroy its private half; False if somebody did before."""
    moved = session.execute(
        update(signing_keys)
        .where(signing_keys.c.id == key_id, signing_keys.c.retired_at.is_(None))
        .values(retired_at=now, sealed_private=None)
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def withdraw_key(session: Session, key_id: str, now: datetime, compromised_at: datetime) -> bool:
    """Withdraw a key, current or retired, and destroy its private half; False if somebody did before."""
    moved = session.execute(
        update(signing_keys)
        .where(signing_keys.c.id == key_id, signing_keys.c.withdrawn_at.is_(None))
        .values(
            withdrawn_at=now,
            compromised_at=compromised_at,
            retired_at=func.coalesce(signing_keys.c.retired_at, literal(now, UtcDateTime)),
            sealed_private=None,
        )
    )
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


def status_list_numbers(session: Session, organisation_id: str, mode: str) -> Sequence[int]:
    """Return the numbers of an issuer's status lists: what is signed again when a key is withdrawn."""
    return session.execute(
        select(status_lists.c.number)
        .where(status_lists.c.organisation_id == organisation_id, status_lists.c.mode == mode)
        .order_by(status_lists.c.number)
    ).scalars().all()  # fmt: skip


def freeze_did(session: Session, organisation_id: str, mode: str, did: str, now: datetime) -> str:
    """Return the organisation's DID for a mode: the given one, unless it was frozen before."""
    session.execute(
        insert_or(issuers)
        .values(organisation_id=organisation_id, mode=mode, did=did, created_at=now)
        .on_conflict_do_nothing(index_elements=["organisation_id", "mode"])
    )
    frozen = issuer_did(session, organisation_id, mode)
    return frozen or did


def issuer_did(session: Session, organisation_id: str, mode: str) -> str | None:
    """Return the frozen DID, or None before the first signature."""
    found: str | None = session.execute(
        _DID, {"organisation_id": organisation_id, "mode": mode}
    ).scalar_one_or_none()
    return found


def organisation_of_did(session: Session, did: str) -> Record | None:
    """Return (organisation id, mode) of one of our issuers by its DID."""
    return session.execute(
        select(issuers.c.organisation_id, issuers.c.mode).where(issuers.c.did == did)
    ).one_or_none()


def add_template(session: Session, **values: Any) -> None:
    """Insert a template."""
    session.execute(insert(templates).values(**values))


def add_template_version(session: Session, **values: Any) -> None:
    """Insert a template version; versions never change."""
    session.execute(insert(template_versions).values(**values))


def template(session: Session, organisation_id: str, id_or_name: str) -> Record | None:
    """Return a template with its current version, by id or by name."""
    return session.execute(
        select(*_TEMPLATE)
        .join(template_versions, template_versions.c.id == templates.c.current_version_id)
        .where(
            templates.c.organisation_id == organisation_id,
            (templates.c.id == id_or_name) | (templates.c.name == id_or_name),
        )
        .order_by(func.length(templates.c.id))
        .limit(1)
    ).one_or_none()


def templates_of(session: Session, organisation_id: str) -> Sequence[Record]:
    """Return an organisation's templates with their current versions."""
    return session.execute(
        select(*_TEMPLATE)
        .join(template_versions, template_versions.c.id == templates.c.current_version_id)
        .where(templates.c.organisation_id == organisation_id)
        .order_by(templates.c.name)
    ).all()


def template_version(session: Session, version_id: str) -> Record:
    """Return one version with its template."""
    return session.execute(
        select(*_TEMPLATE)
        .join(templates, templates.c.id == template_versions.c.template_id)
        .where(template_versions.c.id == version_id)
    ).one()


_TEMPLATE = (
    templates.c.id,
    templates.c.name,
    templates.c.achievement_id,
    template_versions.c.id.label("version_id"),
    template_versions.c.design,
    template_versions.c.theme,
    template_versions.c.design_version,
    template_versions.c.description,
    template_versions.c.criteria,
    template_versions.c.status_purpose,
)
