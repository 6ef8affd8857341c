# SPDX-License-Identifier: Apache-2.0
"""Batches: counts first, failures first, and a picture that is true at every look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import render_template, request

from conferral.domain.credential import ISSUED
from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.services import batching, changing_batches, steering_batches
from conferral.store.queries import batches as rows_of
from conferral.store.queries import listing
from conferral.web import cursors
from conferral.web.console.door import pages, visitor
from conferral.web.site import runtime

PAGE = 25
SHOWN_FAILURES = 20
STEPS = (("send_issuance_email", "E-mailed"), ("post_event", "Webhooks"))


@dataclass(frozen=True, slots=True)
class Bar:
    """One step of a batch, as a bar and as words."""

    name: str
    total: int
    done: int
    working: int
    again: int
    attention: int

    @property
    def waiting(self) -> int:
        """How many have not begun."""
        return max(0, self.total - self.done - self.working - self.again - self.attention)


@pages.get("/batches")
def batches() -> str:
    """List batches, newest first."""
    with runtime().database.snapshot() as session:
        rows = listing.batches_page(
            session,
            visitor().organisation.id,
            None,
            before=cursors.read(request.args.get("cursor")),
            limit=PAGE,
        )
        shown = [(row, batching.progress(session, row)) for row in rows[:PAGE]]
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return render_template(
        "console/batches.html",
        shown=shown,
        older=cursors.write((last.created_at, last.id)) if last is not None else None,
        is_first=not request.args.get("cursor"),
    )


@pages.get("/batches/<batch_id>")
def batch(batch_id: str) -> str:
    """Show one batch: a bar for each step, what failed, and nothing else."""
    organisation_id = visitor().organisation.id
    row = None
    with runtime().database.snapshot() as session:
        if is_id(batch_id, "bat"):
            row = rows_of.batch(session, organisation_id, batch_id)
        if row is None:
            raise Problem("not_found", "there is no such batch")
        progress = batching.progress(session, row)
        offered = [verb.name for verb in changing_batches.possible(session, row)]
        failed = listing.credentials_page(
            session,
            organisation_id,
            None,
            wanted={"batch_id": row.id, "state": "failed"},
            before=None,
            limit=SHOWN_FAILURES,
        )
    return render_template(
        "console/batch.html",
        row=row,
        progress=progress,
        bars=bars(progress),
        failed=failed[:SHOWN_FAILURES],
        has_more_failed=len(failed) > SHOWN_FAILURES,
        batch_verbs=offered,
        steering=steering_batches.possible(progress),
        is_live=progress["status"] in ("running", "validating"),
    )


def bars(progress: dict[str, Any]) -> list[Bar]:
    """Return a bar for every step; mail and webhooks only where there are any."""
    states: dict[str, int] = progress["credentials"]
    settled = {"issued", "revoked", "suspended", "superseded", "erased"}
    issued = Bar(
        name="Issued",
        total=progress["total"],
        done=sum(count for state, count in states.items() if state in settled),
        working=states.get("issuing", 0),
        again=progress["tasks"].get("issue_credential", {}).get("RETRY", 0),
        attention=states.get("failed", 0),
    )
    found = [issued]
    for task, name in STEPS:
        counts = progress["tasks"].get(task)
        if counts:
            # One webhook run for each endpoint: the total grows with what was promised.
            promised = sum(counts.values())
            expected = promised if task == "post_event" else max(promised, states.get(ISSUED, 0))
            found.append(
                Bar(
                    name=name,
                    total=expected,
                    done=counts.get("SUCCESS", 0),
                    working=counts.get("STARTED", 0),
                    again=counts.get("RETRY", 0),
                    attention=counts.get("FAILURE", 0),
                )
            )
    return found
