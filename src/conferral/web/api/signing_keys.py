# SPDX-License-Identifier: Apache-2.0
"""Signing keys of an organisation: listed, rotated, withdrawn, exported; public halves only.

This process cannot open a key. It promises what a worker of the issuance pool does: 202 with a task.
"""

from __future__ import annotations

import json
from typing import Any

from flask import Response, jsonify
from sqlalchemy.orm import Session

from conferral.domain.problems import Problem
from conferral.services import archiving_keys, rotating_keys, signing_keys
from conferral.services.idempotency import Answer
from conferral.services.rotating_keys import Requested
from conferral.services.signing_keys import KnownKey
from conferral.web import idempotent
from conferral.web.api import blueprint, outputs, wire
from conferral.web.api.models import CONFLICT, NOT_FOUND, SigningKeyPath, WithdrawBody, file_of
from conferral.web.gate import needs
from conferral.web.site import caller, runtime

api = blueprint("signing_keys")

ACCEPTED = 202
STATUS_SECONDS = 1  # Retry-After of a 202: making a key takes milliseconds
MOST_NUMBER = 10_000  # far beyond a key a day for 20 years
DID_DOCUMENT = "application/did+json"


@api.get("/v1/signing-keys", responses={200: outputs.SigningKeysOut})
@needs("audit:read")
def list_keys() -> Response:
    """List every key that ever signed in this mode, oldest first."""
    who = caller()
    with runtime().database.snapshot() as session:
        found = signing_keys.keys_of(session, who.organisation_id, who.mode)
    return jsonify(data=[_key(key) for key in found])


@api.get("/v1/signing-keys/export", responses={200: file_of(DID_DOCUMENT), **CONFLICT})
@needs("audit:read")
def export() -> Response:
    """Return the issuer's DID document, for an archive; also that of a did:key, which no address serves."""
    who = caller()
    with runtime().database.snapshot() as session:
        document = signing_keys.document_of(session, who.organisation_id, who.mode)
    if document is None:
        raise Problem("state_conflict", "nothing was signed in this mode yet: there is no DID document")
    return Response(json.dumps(document), mimetype=DID_DOCUMENT)


@api.post("/v1/signing-keys/rotate", responses={ACCEPTED: outputs.KeyChangeOut, **CONFLICT})
@needs("admin")
def rotate() -> Response:
    """Sign with a new key from now on; what was signed before stays valid."""

    def work(session: Session) -> Answer:
        return _accepted(rotating_keys.request_rotation(runtime(), session, caller()))

    return idempotent.once(work)


@api.post(
    "/v1/signing-keys/<number>/withdraw", responses={ACCEPTED: outputs.KeyChangeOut, **NOT_FOUND, **CONFLICT}
)
@needs("admin")
def withdraw(path: SigningKeyPath, body: WithdrawBody) -> Response:
    """Withdraw a stolen key (`1` or `k1`): what it signed is signed again, and its recipients are told."""
    since = rotating_keys.moment_of(body.compromised_at)
    number = path.number.removeprefix("k")
    if not (number.isascii() and number.isdecimal() and int(number[:9]) <= MOST_NUMBER):
        raise Problem("not_found", "there is no such signing key; see GET /v1/signing-keys")

    def work(session: Session) -> Answer:
        return _accepted(rotating_keys.request_withdrawal(runtime(), session, caller(), int(number), since))

    return idempotent.once(work)


def _key(key: KnownKey) -> dict[str, Any]:
    shown = archiving_keys.described(key)
    times = ("created_at", "retired_at", "withdrawn_at", "compromised_at")
    return {**shown, **{name: wire.moment(shown[name]) for name in times}}


def _accepted(asked: Requested) -> Answer:
    where = f"/tasks/{asked.run_id}/status"
    body: dict[str, Any] = {
        "task_id": asked.run_id,
        "status": "queued",
        "key": _key(asked.key),
        "links": {"status": runtime().url(where)},
    }
    return idempotent.json_answer(ACCEPTED, body, {"Location": where, "Retry-After": str(STATUS_SECONDS)})
