# SPDX-License-Identifier: Apache-2.0
"""Credentials: admitted, signed, issued; every move is one conditional statement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Update, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert  # compiles for SQLite, too
from sqlalchemy.orm import Session

from conferral.domain import credential
from conferral.store.records import Record
from conferral.store.tables import (
    credentials,
    organisations,
    status_lists,
    template_versions,
    templates,
)

PAGE = 200

# Built once: building a statement costs as much as executing it, and this one stands in every 202.
_ADD = (
    insert(credentials)
    .on_conflict_do_nothing(index_elements=["organisation_id", "mode", "external_id"])
    .returning(credentials.c.id)
)


def add(session: Session, **values: Any) -> bool:
    """Insert one credential; False if its external id is taken."""
    return session.execute(_ADD, values).scalar_one_or_none() is not None


def add_all(session: Session, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Insert many; return the ids of those that are new (a repeated batch row is not)."""
    statement = insert(credentials).on_conflict_do_nothing().returning(credentials.c.id)
    return set(session.execute(statement, list(rows)).scalars())


def by_external_id(session: Session, organisation_id: str, mode: str, external_id: str) -> Record | None:
    """Return a credential by the organisation's own id for it."""
    return session.execute(
        select(credentials).where(
            credentials.c.organisation_id == organisation_id,
            credentials.c.mode == mode,
            credentials.c.external_id == external_id,
        )
    ).one_or_none()


def of_organisation(
    session: Session, organisation_id: str, mode: str | None, credential_id: str
) -> Record | None:
    """Return a credential if it belongs to the organisation (and mode, if one is given)."""
    statement = select(credentials).where(
        credentials.c.id == credential_id, credentials.c.organisation_id == organisation_id
    )
    if mode is not None:
        statement = statement.where(credentials.c.mode == mode)
    return session.execute(statement).one_or_none()


def by_token(session: Session, token: str) -> Record | None:
    """Return a credential with its organisation and template by its public token."""
    return session.execute(_work().where(credentials.c.token == token)).one_or_none()


def by_vc_id(session: Session, vc_id: str) -> Record | None:
    """Return a credential with its organisation and template by the signed document's id."""
    return session.execute(_work().where(credentials.c.vc_id == vc_id)).one_or_none()


def work(session: Session, credential_id: str) -> Record | None:
    """Return everything that issuing or describing a credential needs, in one row."""
    return session.execute(_WORK_BY_ID, {"wanted": credential_id}).one_or_none()


def _work() -> Any:
    return (
        select(
            credentials,
            organisations.c.name.label("organisation_name"),
            organisations.c.slug.label("organisation_slug"),
            organisations.c.url.label("organisation_url"),
            organisations.c.reply_to.label("organisation_reply_to"),
            templates.c.name.label("template_name"),
            templates.c.id.label("template_id"),
            templates.c.achievement_id,
            template_versions.c.design,
            template_versions.c.theme,
            template_versions.c.design_version,
            template_versions.c.description,
            template_versions.c.criteria,
            status_lists.c.purpose.label("status_purpose"),
        )
        .join(organisations, organisations.c.id == credentials.c.organisation_id)
        .join(template_versions, template_versions.c.id == credentials.c.template_version_id)
        .join(templates, templates.c.id == template_versions.c.template_id)
        .join(status_lists, status_lists.c.number == credentials.c.status_list_number)
    )


# Built once: every run about a credential reads this, and building it costs more than executing it.
_WORK_BY_ID = _work().where(credentials.c.id == bindparam("wanted"))


def page(
    session: Session,
    organisation_id: str,
    mode: str | None = None,
    *,
    state: str | None = None,
    batch_id: str | None = None,
    before: tuple[datetime, str] | None = None,
    limit: int = PAGE,
) -> Sequence[Record]:
    """Return credentials, newest first, at most `limit`, before a (created_at, id) cursor."""
    statement = select(credentials).where(credentials.c.organisation_id == organisation_id)
    if mode is not None:
        statement = statement.where(credentials.c.mode == mode)
    if state is not None:
        statement = statement.where(credentials.c.state == state)
    if batch_id is not None:
        statement = statement.where(credentials.c.batch_id == batch_id)
    if before is not None:
        moment, last = before
        statement = statement.where(
            (credentials.c.created_at < moment)
            | ((credentials.c.created_at == moment) & (credentials.c.id < last))
        )
    newest = (credentials.c.created_at.desc(), credentials.c.id.desc())
    return session.execute(statement.order_by(*newest).limit(min(limit, PAGE))).all()


def set_run(session: Session, credential_id: str, run_id: str) -> None:
    """Name the run that issues a credential."""
    session.execute(update(credentials).where(credentials.c.id == credential_id).values(run_id=run_id))


def record_signed(session: Session, credential_id: str, **values: Any) -> bool:
    """Move queued → issuing with the digests of what was signed; False if it moved already."""
    return _move(session, credential_id, credential.ISSUING, **values)


def record_issued(session: Session, ids: Sequence[str], now: datetime) -> set[str]:
    """Move issuing → issued; return those that did."""
    moved = session.execute(
        update(credentials)
        .where(credentials.c.id.in_(ids), credentials.c.state == credential.ISSUING)
        .values(state=credential.ISSUED, issued_at=now)
        .returning(credentials.c.id)
    )
    return set(moved.scalars())


def record_failed(session: Session, credential_id: str, code: str, detail: str) -> bool:
    """Move to failed with the reason; False if the credential was final already."""
    return _move(session, credential_id, credential.FAILED, failure_code=code, failure_detail=detail)


def record_requeued(session: Session, credential_id: str) -> bool:
    """Move failed → queued, by a person's retry; False if another one replaces its predecessor by now."""
    other = credentials.alias()
    is_taken = select(other.c.id).where(
        other.c.supersedes == credentials.c.supersedes,
        other.c.id != credentials.c.id,
        other.c.state.not_in((credential.FAILED, credential.ERASED)),
    )
    return _move(
        session, credential_id, credential.QUEUED, ~is_taken.exists(), failure_code=None, failure_detail=None
    )


def _move(session: Session, credential_id: str, state: str, *conditions: Any, **values: Any) -> bool:
    statement = _update_to(state).where(*conditions) if conditions else _update_to(state)
    moved = session.execute(statement, {"moved": credential_id, "state": state, **values})
    return bool(moved.rowcount == 1)  # type: ignore[attr-defined]  # CursorResult, by construction


@cache
def _update_to(state: str) -> Update:
    """Return the statement of one move; there are as many as states."""
    return update(credentials).where(
        credentials.c.id == bindparam("moved"), credentials.c.state.in_(credential.sources_of(state))
    )


def unfinished_before(session: Session, moment: datetime, limit: int) -> Sequence[Record]:
    """Return (id, run_id, state) of requested credentials that are not final, oldest first."""
    return session.execute(
        select(credentials.c.id, credentials.c.run_id, credentials.c.state)
        .where(
            credentials.c.state.in_(credential.UNFINISHED),
            credentials.c.created_at < moment,
            credentials.c.run_id.is_not(None),
        )
        .order_by(credentials.c.created_at)
        .limit(limit)
    ).all()


def count_states(session: Session, batch_id: str) -> dict[str, int]:
    """Count a batch's credentials by state."""
    counted = session.execute(
        select(credentials.c.state, func.count())
        .where(credentials.c.batch_id == batch_id)
        .group_by(credentials.c.state)
    )
    return {str(state): int(count) for state, count in counted}


def count_issued(session: Session, organisation_id: str, since: datetime, until: datetime) -> int:
    """Count what an organisation issued in a span of time."""
    counted: int = session.execute(
        select(func.count())
        .select_from(credentials)
        .where(
            credentials.c.organisation_id == organisation_id,
            credentials.c.issued_at >= since,
            credentials.c.issued_at < until,
        )
    ).scalar_one()
    return counted


def batch_rows_of(session: Session, batch_id: str, numbers: Sequence[int]) -> set[int]:
    """Return those rows of a batch that are credentials already."""
    return set(
        session.execute(
            select(credentials.c.batch_row).where(
                credentials.c.batch_id == batch_id, credentials.c.batch_row.in_(numbers)
            )
        ).scalars()
    )


def set_runs(session: Session, pairs: Sequence[tuple[str, str]]) -> None:
    """Name the runs that issue credentials: (credential id, run id)."""
    if pairs:
        session.execute(
            update(credentials).where(credentials.c.id == bindparam("one")).values(run_id=bindparam("run")),
            [{"one": credential_id, "run": run_id} for credential_id, run_id in pairs],
        )
