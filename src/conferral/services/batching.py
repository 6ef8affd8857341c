# SPDX-License-Identifier: Apache-2.0
"""Batches: rows of a table become credentials and runs, a few hundred a commit.

Expanding can die anywhere and be repeated: a row becomes a credential once (batch, row), and
every chunk promises its successor under a key of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain.problems import Problem
from conferral.reliable import status
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import BULK, promise, promise_all
from conferral.reliable.runs import Run
from conferral.services import admission, issuing
from conferral.services.admission import Admitted, Wanted
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import batch_steering, batches, credentials, issuers
from conferral.store.records import Record

log = logging.getLogger(__name__)

TASK: Final = "tasks.issuance.expand_batch"
CHUNK: Final = 500  # rows a commit
ROWS_A_RUN: Final = 2_000  # the pool's hard limit is 25 s
MAX_ROWS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Row:
    """One row that was checked: its number in the file (1 is the first data row), and what it says."""

    number: int
    wanted: Wanted


def create(
    rt: Runtime, session: Session, caller: Caller, template: Record, rows: Sequence[Row], *, name: str
) -> str:
    """Insert a batch of checked rows and promise its expansion; return its id."""
    if not rows:
        raise Problem("validation_failed", "there is no row to issue")
    if len(rows) > MAX_ROWS:
        raise Problem("too_many_rows", f"{len(rows)} rows; at most {MAX_ROWS} in one batch")
    batch_id = rt.new_id("bat")
    batches.add(
        session,
        [{"number": row.number, "content": asdict(row.wanted)} for row in rows],
        id=batch_id,
        organisation_id=caller.organisation_id,
        mode=caller.mode,
        template_version_id=template.version_id,
        name=name[:200],
        state="running",
        total=len(rows),
        send_email=True,
        created_at=rt.database.now(),
    )
    promise_expansion(session, batch_id, caller.organisation_id, 0)
    return batch_id


def expand(rt: Runtime, run: Run, batch_id: str, after: str, change_id: str = "") -> None:
    """Turn the next rows of a batch into credentials and runs; promise the rest.

    `change_id` names a person's retry, which goes through the rows once more. A batch that was
    cancelled makes no further credential.
    """
    with rt.database.snapshot() as session:
        batch = batches.for_expanding(session, batch_id)
        template = issuers.template_version(session, batch.template_version_id) if batch else None
    if batch is None or template is None:
        raise Permanent("not_found", f"there is no batch {batch_id}")
    last = int(after)
    for _ in range(ROWS_A_RUN // CHUNK):
        with rt.database.snapshot() as session:
            rows = batches.rows(session, batch_id, last, CHUNK)
        if not rows:
            break
        checked = _check(rt, batch_id, template, rows)
        with rt.database.transaction() as session:
            if batch_steering.locked_state(session, batch_id) == "cancelled":
                break
            _insert(rt, session, batch, template, checked)
        crash_point("expand.chunk_committed")
        last = rows[-1].number
    with rt.database.transaction() as session:
        is_cancelled = batch_steering.locked_state(session, batch_id) == "cancelled"
        if not is_cancelled and batches.rows(session, batch_id, last, 1):
            promise_expansion(session, batch_id, batch.organisation_id, last, change_id)
        run.settle(session, {"expanded_to": last})


def _check(
    rt: Runtime, batch_id: str, template: Record, rows: Sequence[Record]
) -> list[tuple[int, Admitted]]:
    """Return the rows that are still valid: they were checked before, but a font may be gone since."""
    checked = []
    for row in rows:
        found = admission.check(rt, template.design, Wanted(**row.content))
        if isinstance(found, Admitted):
            checked.append((row.number, found))
        else:
            codes = sorted({error.code for error in found})
            log.error("batch_row_refused", extra={"batch_id": batch_id, "row": row.number, "code": codes[0]})
    return checked


def _insert(
    rt: Runtime, session: Session, batch: Record, template: Record, checked: Sequence[tuple[int, Admitted]]
) -> None:
    caller = Caller(batch.organisation_id, batch.mode, "system", frozenset())
    known = credentials.batch_rows_of(session, batch.id, [number for number, _ in checked])
    new = [(number, one) for number, one in checked if number not in known]
    if not new:
        return
    rows = admission.rows(
        rt,
        session,
        caller,
        template,
        [one for _, one in new],
        batch_id=batch.id,
        batch_rows=[number for number, _ in new],
    )
    inserted = credentials.add_all(session, rows)
    fresh = [row for row in rows if row["id"] in inserted]
    run_ids = promise_all(session, [issuing.bulk_promise(row) for row in fresh])
    credentials.set_runs(session, list(zip([row["id"] for row in fresh], run_ids, strict=True)))


def promise_expansion(
    session: Session, batch_id: str, organisation_id: str, after: int, change_id: str = ""
) -> None:
    """Promise that the rows after this one become credentials; once, and once more for each retry."""
    promise(
        session,
        TASK,
        [batch_id, str(after), *([change_id] if change_id else [])],
        key=f"expand:{batch_id}:{after}" + (f":{change_id}" if change_id else ""),
        subject=batch_id,
        tenant=organisation_id,
        priority=BULK,
        group_key=batch_id,
    )


def progress(session: Session, batch: Record) -> dict[str, Any]:
    """Return a batch's counts as the API shows them; absolute, so a lost look is harmless."""
    by_state = credentials.count_states(session, batch.id)
    by_task = status.counts_by_task(session, batch.id)
    tasks = {task.rpartition(".")[2]: counts for task, counts in sorted(by_task.items())}
    open_runs = sum(
        count
        for counts in by_task.values()
        for state, count in counts.items()
        if state in ("PENDING", "STARTED", "RETRY")
    )
    is_done = bool(by_task) and open_runs == 0
    return {
        "batch_id": batch.id,
        "name": batch.name,
        "status": "completed" if is_done and batch.state == "running" else batch.state,
        "total": batch.total,
        "credentials": by_state,
        "not_created": max(batch.total - sum(by_state.values()), 0),
        "tasks": tasks,
        "created_at": batch.created_at.isoformat(),
    }
