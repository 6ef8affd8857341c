# SPDX-License-Identifier: Apache-2.0
"""Batches: many credentials of one template, created in one request and issued in the background."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from sqlalchemy.orm import Session

from conferral.domain.ids import is_id
from conferral.domain.problems import FieldError, Problem
from conferral.services import admission, batching
from conferral.services.admission import Admitted, Wanted
from conferral.services.batching import Row
from conferral.services.external_ids import ExternalIds, Repeated, Same, Taken
from conferral.services.idempotency import Answer
from conferral.store.queries import batches, listing
from conferral.store.records import Record
from conferral.web import cursors, idempotent
from conferral.web.api import blueprint, outputs, wire
from conferral.web.api.credentials import row_wanted
from conferral.web.api.models import NOT_FOUND, BatchBody, BatchPath, PageQuery
from conferral.web.gate import MAX_JSON_BATCH, needs
from conferral.web.site import caller, runtime

api = blueprint("batches")

ACCEPTED = 202
DEFAULT_NAME = "Batch of {count} by API"


@api.post("/v1/batches", responses={202: outputs.BatchAcceptedOut})
@needs("batches:write", max_body=MAX_JSON_BATCH)
def create(body: BatchBody) -> Response:
    """Accept a batch; every row is checked before, and all that is wrong is told at once.

    The header Idempotency-Key is required: a batch that is sent twice would be issued twice.
    """
    return idempotent.once(lambda session: _create(session, body), required=True)


@api.get("/v1/batches", responses={200: outputs.BatchPage})
@needs("batches:read")
def list_batches(query: PageQuery) -> Response:
    """List batches, newest first."""
    who = caller()
    with runtime().database.snapshot() as session:
        rows = listing.batches_page(
            session, who.organisation_id, who.mode, before=cursors.read(query.cursor), limit=query.limit
        )
        return jsonify(cursors.page(rows, query.limit, lambda row: progress(session, row)))


@api.get("/v1/batches/<batch_id>", responses={200: outputs.BatchOut, **NOT_FOUND})
@needs("batches:read")
def show(path: BatchPath) -> Response:
    """Return a batch with its counts by state and by task."""
    who = caller()
    row = None
    with runtime().database.snapshot() as session:
        if is_id(path.batch_id, "bat"):
            row = batches.batch(session, who.organisation_id, path.batch_id)
        if row is None or row.mode != who.mode:
            raise Problem("not_found", "there is no such batch")
        return jsonify(progress(session, row))


def progress(session: Session, row: Record) -> dict[str, Any]:
    """Return a batch as the API shows it."""
    return {**batching.progress(session, row), "created_at": wire.moment(row.created_at)}


def _create(session: Session, body: BatchBody) -> Answer:
    rt = runtime()
    template = admission.find_template(session, caller().organisation_id, body.template_id)
    good: list[tuple[int, Wanted, Admitted]] = []
    errors: list[FieldError] = []
    for place, given in enumerate(body.rows):
        wanted = row_wanted(body.template_id, given, send_email=True)
        checked = admission.check(rt, template.design, wanted)
        if isinstance(checked, Admitted):
            good.append((place, wanted, checked))
        else:
            errors += [
                FieldError(f"#/rows/{place}{one.pointer[1:]}", one.code, one.detail) for one in checked
            ]
    rows, conflicts = _with_own_ids(good, template.version_id)
    errors += conflicts
    if errors:
        raise Problem("validation_failed", f"{len(errors)} value(s) are not valid", errors=errors)
    name = body.name or DEFAULT_NAME.format(count=len(rows))
    batch_id = batching.create(rt, session, caller(), template, rows, name=name)
    where = f"/v1/batches/{batch_id}"
    answer = {"batch_id": batch_id, "status": "running", "links": {"self": rt.url(where)}}
    return idempotent.json_answer(ACCEPTED, answer, {"Location": where})


def _with_own_ids(
    good: list[tuple[int, Wanted, Admitted]], version_id: str
) -> tuple[list[Row], list[FieldError]]:
    """Return the rows to issue, and those whose external id another row or credential has.

    A row that was issued before with the same content is left out: it has its credential.
    """
    rows: list[Row] = []
    conflicts: list[FieldError] = []
    ids = ExternalIds(runtime(), caller(), version_id)
    standings = ids.standings([(place, checked) for place, _, checked in good])
    for (place, wanted, _), standing in zip(good, standings, strict=True):
        pointer = f"#/rows/{place}/external_id"
        if isinstance(standing, Repeated):
            detail = f"row {standing.number} of this batch has it, too (counted from 0)"
            conflicts.append(FieldError(pointer, "external_id_conflict", detail))
        elif isinstance(standing, Taken):
            detail = f"it belongs to {standing.credential_id}, which has other content"
            conflicts.append(FieldError(pointer, "external_id_conflict", detail))
        elif not isinstance(standing, Same):
            rows.append(Row(place + 1, wanted))
    return rows, conflicts
