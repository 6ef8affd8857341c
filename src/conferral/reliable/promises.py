# SPDX-License-Identifier: Apache-2.0
"""Promise an execution inside the caller's transaction.

The row and what it is about are one commit, so nothing is half accepted. The bell (a Celery
message) is rung after the commit and may be lost: the dispatcher rings what is due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, and_, case, select

# Both databases spell ON CONFLICT and RETURNING alike, and SQLAlchemy's PostgreSQL insert
# compiles for SQLite, too (the contract suite holds it): one statement instead of two.
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from conferral.reliable.ids import new_run_id
from conferral.reliable.outbox import Ring, outbox_of, terms_of
from conferral.reliable.tables import CLAIMABLE, PENDING, runs

INTERACTIVE = 0  # somebody waits
BULK = 10  # somebody watches a bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One execution to promise; see `promise` for the meaning of each field."""

    task: str
    args: Sequence[str]
    key: str | None = None
    coalesce: str | None = None
    subject: str | None = None
    tenant: str = ""
    priority: int = INTERACTIVE
    due_at: datetime | None = None
    bundle_key: str | None = None
    group_key: str | None = None


def promise(session: Session, task: str, args: Sequence[str], **options: Any) -> str:
    """Promise that `task` will be executed with `args`; return the run's id. Never commits.

    Args:
        session: the caller's transaction.
        task: the task's name; its queue follows from the routes.
        args: ids only, never personal data: they travel through Redis and logs.
        **options: the fields of `Promise`:
            key: unique for ever; a taken key returns the existing run's id.
            coalesce: unique among runs not yet claimed; a waiting one is pulled forward.
            subject: what the run is about (`cred_…`); the timeline is read by it.
            tenant: whose share of the workers it uses.
            priority: INTERACTIVE or BULK.
            due_at: not before; default now.
            bundle_key: bundles never mix keys (one destination each).
            group_key: the batch, for its counts, pause and cancel.

    Returns:
        The id of the run that will do the work: new, or the one that holds the key.
    """
    wanted = Promise(task=task, args=args, **options)
    if wanted.key is not None and wanted.coalesce is not None:
        raise ValueError("a promise is made once for ever (key) or once until claimed (coalesce), not both")
    row = _row(session, wanted)
    insert_row = _insert_once if wanted.coalesce is None else _insert_coalescing
    run_id = insert_row(session, row)
    if run_id == row["id"] and row["rung_at"] is not None:
        outbox_of(session).rings.append(Ring(run_id, task, row["queue"]))
    return run_id


def promise_all(session: Session, promises: Sequence[Promise]) -> list[str]:
    """Promise many executions at once; return the ids of those that are new.

    Taken keys are skipped. Coalescing promises are refused: make them one by one, last.
    """
    if any(wanted.coalesce is not None for wanted in promises):
        raise ValueError("a coalescing promise must be the last statement of its commit; use promise()")
    rows = [_row(session, wanted) for wanted in promises]
    if not rows:
        return []
    inserted = set(session.execute(_INSERT_ONCE, rows).scalars())
    rings = outbox_of(session).rings
    for row in rows:
        if row["id"] in inserted and row["rung_at"] is not None:
            rings.append(Ring(row["id"], row["task"], row["queue"]))
    return [row["id"] for row in rows if row["id"] in inserted]


def _row(session: Session, wanted: Promise) -> dict[str, Any]:
    terms = terms_of(session)
    now = terms.now()
    due_at = wanted.due_at or now
    queue = terms.routing.queue_of(wanted.task)
    # Rung by us right after the commit; what is bulk, later or rationed is the dispatcher's.
    at_once = wanted.priority == INTERACTIVE and due_at <= now and terms.routing.rate_of(queue) is None
    return {
        "id": new_run_id(),
        "task": wanted.task,
        "queue": queue,
        "args": list(wanted.args),
        "key": wanted.key,
        "coalesce_key": wanted.coalesce,
        "bundle_key": wanted.bundle_key,
        "group_key": wanted.group_key,
        "subject": wanted.subject,
        "tenant": wanted.tenant,
        "priority": wanted.priority,
        "state": PENDING,
        "due_at": due_at,
        "rung_at": now if at_once else None,
        "created_at": now,
    }


def _insert_once(session: Session, row: Mapping[str, Any]) -> str:
    inserted: str | None = session.execute(_INSERT_ONCE, row).scalar_one_or_none()
    if inserted is not None:
        return inserted
    holder: str = session.execute(select(runs.c.id).where(runs.c.key == row["key"])).scalar_one()
    return holder


def _insert_coalescing(session: Session, row: Mapping[str, Any]) -> str:
    run_id: str = session.execute(_INSERT_COALESCING, row).scalar_one()
    return run_id


def _coalescing() -> Executable:
    # DO UPDATE, never DO NOTHING: it waits for a claim under way, so a wake-up that meets a
    # run being claimed becomes a run of its own. A run in RETRY keeps its backoff.
    statement = insert(runs)
    pulled = case(
        (
            and_(runs.c.state == PENDING, statement.excluded.due_at < runs.c.due_at),
            statement.excluded.due_at,
        ),
        else_=runs.c.due_at,
    )
    return statement.on_conflict_do_update(
        index_elements=[runs.c.coalesce_key], index_where=CLAIMABLE, set_={"due_at": pulled}
    ).returning(runs.c.id)


# Built once: each credential makes such promises, and building a statement costs more than executing it.
_INSERT_ONCE = insert(runs).on_conflict_do_nothing(index_elements=[runs.c.key]).returning(runs.c.id)
_INSERT_COALESCING = _coalescing()
