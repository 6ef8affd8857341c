# SPDX-License-Identifier: Apache-2.0
"""What foreign verifiers fetch: issuers' DID documents, status lists, the logs and their keys.

Every file may be read from any web page (CORS), or verifiers in browsers fail.
"""

from __future__ import annotations

import json
from typing import Final

from flask import Blueprint, Response

from conferral.domain.problems import Problem
from conferral.services import anchoring, signing_keys
from conferral.store.queries import log, status_lists
from conferral.web.problems import Refusal
from conferral.web.public import answers
from conferral.web.site import runtime

pages = Blueprint("evidence", __name__)

DID_SECONDS: Final = 3_600
LIST_SECONDS: Final = 300
KEY_SECONDS: Final = 3_600
FIRST_SIGNATURE_SECONDS: Final = 1  # a new list is signed by the next free worker
MOST_NUMBER: Final = 2**31 - 1  # of a status list: the column's type


@pages.get("/issuers/<slug>/did.json")
def did_document(slug: str) -> Response:
    """Return the DID document of an organisation that is named by did:web."""
    found = signing_keys.did_document(runtime(), slug) if "\0" not in slug else None
    if found is None:
        raise Problem("not_found", "there is no such issuer, or it is named by its key (did:key)")
    return answers.file(json.dumps(found), "application/did+json", seconds=DID_SECONDS)


@pages.get("/status/<int:number>")
def status_list(number: int) -> Response:
    """Return a signed status list."""
    row = None
    if number <= MOST_NUMBER:
        with runtime().database.snapshot() as session:
            row = status_lists.served(session, number)
    if row is None:
        raise Problem("not_found", "there is no such status list")
    if row.signed is None:
        raise Refusal(
            Problem("temporary_reduced_capacity", "the list is being signed for the first time"),
            headers={"Retry-After": str(FIRST_SIGNATURE_SECONDS)},
            status=503,
        )
    return answers.file(row.signed, "application/vc", seconds=LIST_SECONDS)


@pages.get("/log/checkpoint", defaults={"name": "live"}, endpoint="checkpoint")
@pages.get("/test-log/checkpoint", defaults={"name": "test"}, endpoint="test_checkpoint")
def checkpoint(name: str) -> Response:
    """Return the newest signed checkpoint (C2SP tlog-checkpoint)."""
    with runtime().database.snapshot() as session:
        newest = log.newest_checkpoint(session, name)
    if newest is None:
        raise Problem("not_found", "the log is empty: nothing was issued yet")
    return answers.file(newest.note, "text/plain", seconds=0)


@pages.get("/log/vkey", defaults={"name": "live"}, endpoint="vkey")
@pages.get("/test-log/vkey", defaults={"name": "test"}, endpoint="test_vkey")
def verifier_key(name: str) -> Response:
    """Return the key that checkpoints are checked with (C2SP signed-note)."""
    with runtime().database.snapshot() as session:
        key = anchoring.verifier_key(session, name)
    if key is None:
        raise Problem("not_found", "the log is empty: nothing was issued yet")
    return answers.file(f"{key}\n", "text/plain", seconds=KEY_SECONDS)
