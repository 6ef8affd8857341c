# SPDX-License-Identifier: Apache-2.0
"""Revoke, suspend, reinstate, replace: each first says what it will do, then a second form does it.

A form that is sent twice is one change: the verbs are idempotent, and the audit log names the person.
"""

from __future__ import annotations

from typing import Final

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from conferral.adapters import design_store
from conferral.domain import status_change
from conferral.domain.ids import is_id
from conferral.domain.problems import Problem
from conferral.domain.status_change import SUPERSEDE, VERBS, Verb
from conferral.services import changing_batches, changing_status, steering_batches, superseding
from conferral.services.admission import LOCALES
from conferral.services.superseding import Changes
from conferral.store.queries import batches, credentials
from conferral.store.records import Record
from conferral.web.console.door import pages, visitor
from conferral.web.site import runtime

MOST_TYPED: Final = 2_000  # characters of one value; admission says the exact limits


@pages.get("/credentials/<credential_id>/change/<verb>")
def preview_change(credential_id: str, verb: str) -> str:
    """Say what a verb will do to a credential, and ask why."""
    row, wanted = _credential(credential_id), _verb(verb)
    refused = status_change.refusal(wanted, row.state, row.status_purpose)
    return render_template(
        "console/change.html", row=row, verb=wanted, refused=refused, reasons=status_change.REASONS
    )


@pages.post("/credentials/<credential_id>/change/<verb>")
def change(credential_id: str, verb: str) -> Response:
    """Say a verb to a credential."""
    _require_role()
    row, wanted = _credential(credential_id), _verb(verb)
    rt = runtime()
    with rt.database.transaction() as session:
        changing_status.change(
            rt, session, visitor().caller(row.mode), wanted, row.id, reason=request.form.get("reason") or None
        )
    return redirect(url_for("console.credential", credential_id=row.id))


@pages.get("/credentials/<credential_id>/supersede")
def preview_supersede(credential_id: str) -> str:
    """Show what a credential says, to be corrected."""
    return _correction_page(_credential(credential_id))


@pages.post("/credentials/<credential_id>/supersede")
def supersede(credential_id: str) -> Response | tuple[str, int]:
    """Issue a corrected credential; wrong values are shown beside what was typed."""
    _require_role()
    row = _credential(credential_id)
    rt = runtime()
    typed = {name: value.replace("\0", "")[:MOST_TYPED] for name, value in request.form.items()}
    changes = Changes(
        recipient_name=typed.get("name"),
        recipient_email=typed.get("email"),
        locale=typed.get("locale") or None,
        fields={name[len("field.") :]: value for name, value in typed.items() if name.startswith("field.")},
        issued_on=typed.get("issued_on") or None,
        expires_on=typed.get("expires_on"),
    )
    try:
        with rt.database.transaction() as session:
            accepted = superseding.request(rt, session, visitor().caller(row.mode), row.id, changes)
    except Problem as problem:
        return _correction_page(row, typed, problem), problem.type.status
    return redirect(url_for("console.credential", credential_id=accepted.credential_id))


@pages.get("/batches/<batch_id>/change/<verb>")
def preview_batch_change(batch_id: str, verb: str) -> str:
    """Count what a verb will change in a batch, and ask why."""
    batch, wanted = _batch(batch_id), _verb(verb)
    with runtime().database.snapshot() as session:
        counts = changing_batches.preview(session, batch, wanted)
    return render_template(
        "console/change_batch.html", batch=batch, verb=wanted, counts=counts, reasons=status_change.REASONS
    )


@pages.post("/batches/<batch_id>/change/<verb>")
def change_batch(batch_id: str, verb: str) -> Response:
    """Promise to say a verb to every credential of a batch."""
    _require_role()
    batch, wanted = _batch(batch_id), _verb(verb)
    rt = runtime()
    with rt.database.transaction() as session:
        changing_batches.request(
            rt,
            session,
            visitor().caller(batch.mode),
            wanted,
            batch.id,
            reason=request.form.get("reason") or None,
        )
    return redirect(url_for("console.batch", batch_id=batch.id))


@pages.post("/batches/<batch_id>/steer/<verb>")
def steer_batch(batch_id: str, verb: str) -> Response:
    """Pause, resume, cancel or retry a batch; each can be taken back by another of them."""
    _require_role()
    batch = _batch(batch_id)
    if verb not in steering_batches.VERBS:
        raise Problem("not_found", "there is no such verb")
    rt = runtime()
    with rt.database.transaction() as session:
        steering_batches.VERBS[verb](rt, session, visitor().caller(batch.mode), batch.id)
    return redirect(url_for("console.batch", batch_id=batch.id))


def _correction_page(row: Record, typed: dict[str, str] | None = None, problem: Problem | None = None) -> str:
    return render_template(
        "console/supersede.html",
        row=row,
        fields=design_store.fields_of(row.design),
        locales=LOCALES,
        typed=typed or {},
        problem=problem,
        errors={error.pointer: error for error in problem.errors} if problem else {},
        refused=status_change.refusal(SUPERSEDE, row.state, row.status_purpose) if not problem else None,
    )


def _credential(credential_id: str) -> Record:
    row = None
    if is_id(credential_id, "cred"):
        with runtime().database.snapshot() as session:
            row = credentials.work(session, credential_id)
    if row is None or row.organisation_id != visitor().organisation.id:
        raise Problem("not_found", "there is no such credential")
    return row


def _batch(batch_id: str) -> Record:
    row = None
    if is_id(batch_id, "bat"):
        with runtime().database.snapshot() as session:
            row = batches.batch(session, visitor().organisation.id, batch_id)
    if row is None:
        raise Problem("not_found", "there is no such batch")
    return row


def _verb(name: str) -> Verb:
    if name not in VERBS:
        raise Problem("not_found", "there is no such change")
    return VERBS[name]


def _require_role() -> None:
    if not visitor().may_change:
        raise Problem("scope_missing", "your role may look and not change; ask an owner")
