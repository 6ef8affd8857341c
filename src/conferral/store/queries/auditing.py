# SPDX-License-Identifier: Apache-2.0
"""What the audit reads: pages by key, never a whole table; and no personal data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Table, func, select
from sqlalchemy.orm import Session

from conferral.reliable.tables import attempts, runs
from conferral.store.records import Record
from conferral.store.tables import (
    audit_log,
    checkpoints,
    credentials,
    leaves,
    log_tiles,
    logs,
    revisions,
    signed_documents,
    status_lists,
)


def count(session: Session, table: Table) -> int:
    """Count the rows of a table."""
    counted: int = session.execute(select(func.count()).select_from(table)).scalar_one()
    return counted


def keys_after(session: Session, column: Column[Any], after: Any, limit: int) -> list[Any]:
    """Return the next keys of a table in their order; `after` None begins."""
    statement = select(column).order_by(column).limit(limit)
    if after is not None:
        statement = statement.where(column > after)
    return list(session.execute(statement).scalars())


def credentials_of(session: Session, ids: Sequence[str]) -> Sequence[Record]:
    """Return credentials with the state of their runs and their leaves."""
    return session.execute(
        select(
            *(credentials.c[name] for name in _CREDENTIAL),
            runs.c.state.label("run_state"),
            leaves.c.log.label("leaf_log"),
            leaves.c.entry,
            leaves.c.leaf_index,
        )
        .outerjoin(runs, runs.c.id == credentials.c.run_id)
        .outerjoin(
            leaves,
            (leaves.c.credential_id == credentials.c.id) & (leaves.c.revision == credentials.c.revision),
        )
        .where(credentials.c.id.in_(ids))
        .order_by(credentials.c.id)
    ).all()


_CREDENTIAL = (
    "id", "organisation_id", "mode", "state", "revision", "batch_id", "run_id", "send_email", "vc_id",
    "token", "status_list_number", "status_index", "created_at", "base_sha384", "base_length", "pdf_sha256",
    "vc_sha256", "verification_method", "issued_at", "failure_code",
)  # fmt: skip


def all_logs(session: Session) -> Sequence[Record]:
    """Return every log with the size of its newest checkpoint."""
    newest = select(func.max(checkpoints.c.size)).where(checkpoints.c.log == logs.c.log).scalar_subquery()
    return session.execute(
        select(logs.c.log, logs.c.origin, logs.c.public_key, logs.c.size, logs.c.root, newest.label("signed"))
        .order_by(logs.c.log)
    ).all()  # fmt: skip


def leaves_between(session: Session, log: str, begin: int, end: int) -> Sequence[Record]:
    """Return the leaves with an index in [begin, end) in their order."""
    return session.execute(
        select(leaves.c.leaf_index, leaves.c.entry, leaves.c.credential_id)
        .where(leaves.c.log == log, leaves.c.leaf_index >= begin, leaves.c.leaf_index < end)
        .order_by(leaves.c.leaf_index)
    ).all()


def checkpoints_between(session: Session, log: str, begin: int, end: int) -> Sequence[Record]:
    """Return the checkpoints with a size in (begin, end] in their order."""
    return session.execute(
        select(checkpoints.c.size, checkpoints.c.root, checkpoints.c.note)
        .where(checkpoints.c.log == log, checkpoints.c.size > begin, checkpoints.c.size <= end)
        .order_by(checkpoints.c.size)
    ).all()


def tile(session: Session, log: str, level: int, number: int) -> Record | None:
    """Return a stored tile's width and hashes."""
    return session.execute(
        select(log_tiles.c.width, log_tiles.c.data).where(
            log_tiles.c.log == log, log_tiles.c.level == level, log_tiles.c.number == number
        )
    ).one_or_none()


def runs_of(session: Session, ids: Sequence[str]) -> Sequence[Record]:
    """Return runs, without their args."""
    return session.execute(
        select(runs.c.id, runs.c.task, runs.c.state, runs.c.attempt, runs.c.snoozes, runs.c.result)
        .where(runs.c.id.in_(ids))
        .order_by(runs.c.id)
    ).all()


def attempts_of(session: Session, run_ids: Sequence[str]) -> Sequence[Record]:
    """Return the attempts of runs in their order, without evidence."""
    return session.execute(
        select(
            attempts.c.run_id,
            attempts.c.number,
            attempts.c.started_at,
            attempts.c.finished_at,
            attempts.c.outcome,
            attempts.c.next_due_at,
        )
        .where(attempts.c.run_id.in_(run_ids))
        .order_by(attempts.c.run_id, attempts.c.number)
    ).all()


def replays_of(session: Session, run_ids: Sequence[str]) -> dict[str, list[datetime]]:
    """Return when runs were replayed, as the audit log says: by a person, or by the search for lost work."""
    found: dict[str, list[datetime]] = {}
    for subject, at in session.execute(
        select(audit_log.c.subject, audit_log.c.created_at).where(
            audit_log.c.subject.in_(run_ids), audit_log.c.action.in_(REPLAYS)
        )
    ):
        found.setdefault(subject, []).append(at)
    return found


REPLAYS = ("dead_letter.replayed", "dead_letters.replayed", "run.revived")


def revisions_of(session: Session, ids: Sequence[str]) -> Sequence[Record]:
    """Return the replaced revisions of credentials, each with the columns that its files are judged by."""
    return session.execute(
        select(
            credentials.c.id,
            credentials.c.organisation_id,
            credentials.c.mode,
            credentials.c.vc_id,
            credentials.c.status_index,
            credentials.c.base_sha384,
            credentials.c.base_length,
            revisions.c.revision,
            revisions.c.vc_sha256,
            revisions.c.pdf_sha256,
            revisions.c.verification_method,
            leaves.c.entry,
        )
        .join(credentials, credentials.c.id == revisions.c.credential_id)
        .outerjoin(
            leaves,
            (leaves.c.credential_id == revisions.c.credential_id)
            & (leaves.c.revision == revisions.c.revision),
        )
        .where(revisions.c.credential_id.in_(ids))
        .order_by(revisions.c.credential_id, revisions.c.revision)
    ).all()


def named_files(session: Session, low: str, high: str) -> Iterator[str]:
    """Yield the digests in [low, high) of all files that rows name."""
    for column in _FILES:
        named = session.execute(select(column).where(column >= low, column < high))
        yield from named.scalars().yield_per(_FETCHED)


def which_are_named(session: Session, digests: Sequence[str]) -> set[str]:
    """Return those digests that some row names."""
    found: set[str] = set()
    for column in _FILES:
        found.update(session.execute(select(column).where(column.in_(digests))).scalars())
    return found


_FILES = (credentials.c.pdf_sha256, credentials.c.vc_sha256, revisions.c.pdf_sha256, revisions.c.vc_sha256)
_FETCHED = 1_000


def list_created_at(session: Session, number: int) -> datetime:
    """Return when a status list was opened."""
    found: datetime = session.execute(
        select(status_lists.c.created_at).where(status_lists.c.number == number)
    ).scalar_one()
    return found


def at_index(session: Session, number: int, index: int) -> Record | None:
    """Return (id, status_changed_at) of the credential, or other software's document, with this place."""
    documents = signed_documents
    return session.execute(
        select(credentials.c.id, credentials.c.status_changed_at)
        .where(credentials.c.status_list_number == number, credentials.c.status_index == index)
        .union_all(
            select(documents.c.id, documents.c.revoked_at).where(
                documents.c.status_list_number == number, documents.c.status_index == index
            )
        )
    ).first()


def firings_after(
    session: Session, schedule: str, since: datetime, after: str | None, limit: int
) -> Sequence[Record]:
    """Return (id, key, created_at) of the next runs that a schedule promised since a time."""
    statement = select(runs.c.id, runs.c.key, runs.c.created_at).where(
        runs.c.subject == schedule, runs.c.key.like(f"tick:{schedule}:%"), runs.c.created_at >= since
    )
    if after is not None:
        statement = statement.where(runs.c.id > after)
    return session.execute(statement.order_by(runs.c.id).limit(limit)).all()
