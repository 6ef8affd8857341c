# SPDX-License-Identifier: Apache-2.0
"""VC-API, signing: off by default; behind a key; logged, withdrawable and forgotten like it says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from conferral.domain import canonical
from conferral.domain.status_list import decode_list, is_set
from conferral.store import tables
from support.product import product_on
from support.web import ISSUE, Web, body, web_of

PATH = "/vc-api/credentials/issue"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Yield the application with signing switched on and an issuer whose DID is fixed."""
    with product_on("sqlite", tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        made = web_of(product, vc_api_issue=True)
        made.post(ISSUE, body())
        product.run()
        yield made


def document(web: Web, **members: Any) -> dict[str, Any]:
    """Return an unsigned credential of the organisation."""
    (issuer,) = web.product.rows(tables.issuers, tables.issuers.c.mode == web.product.caller.mode)
    return {
        "@context": [canonical.VC_V2],
        "id": "urn:uuid:00000000-0000-4000-8000-000000000009",
        "type": ["VerifiableCredential"],
        "issuer": issuer.did,
        "validFrom": "2020-01-01T00:00:00Z",
        "credentialSubject": {"id": "did:example:somebody"},
        **members,
    }


def issue(web: Web, unsigned: dict[str, Any]) -> TestResponse:
    """Ask for a signature; a worker signs while the request waits."""
    answers: list[TestResponse] = []

    def ask() -> None:
        answers.append(web.post(PATH, {"credential": unsigned}, "credentials:write"))

    asking = threading.Thread(target=ask)
    asking.start()
    while asking.is_alive():
        web.product.run_only("tasks.issuance.sign_document")
        asking.join(0.05)
    return answers[0]


def verified(web: Web, signed: Any) -> TestResponse:
    """Ask whether it is verified."""
    return web.client.post("/vc-api/credentials/verify", json={"verifiableCredential": signed})


def test_a_document_is_signed_logged_and_verified(web: Web) -> None:
    """201 with a proof and a status entry; a leaf in the log; verified at the same door."""
    answer = issue(web, document(web))
    assert answer.status_code == 201, answer.get_data(as_text=True)
    signed = answer.json["verifiableCredential"]
    assert signed["proof"]["cryptosuite"] == "eddsa-rdfc-2022"
    assert signed["credentialStatus"]["type"] == "BitstringStatusListEntry"
    web.product.run()
    assert verified(web, signed).json["verified"] is True
    leaves = web.product.rows(tables.leaves)
    assert [leaf.leaf_index for leaf in leaves] == [0, 1]
    assert leaves[1].credential_id is None


def test_what_was_signed_can_be_withdrawn(web: Web) -> None:
    """By its status entry: our own answer at once, the signed list with its next signature."""
    signed = issue(web, document(web)).json["verifiableCredential"]
    wanted = {"credentialStatus": signed["credentialStatus"], "status": True}
    done = web.post("/vc-api/credentials/status", wanted, "credentials:write")
    assert done.status_code == 200, done.get_data(as_text=True)
    refused = verified(web, signed)
    assert [error["id"] for error in refused.json["errors"]] == ["status"]
    number = int(signed["credentialStatus"]["statusListCredential"].rpartition("/")[2])
    web.product.time.move_to(web.product.time() + timedelta(minutes=1))
    web.product.run()
    (row,) = web.product.rows(tables.status_lists, tables.status_lists.c.number == number)
    again = web.post("/vc-api/credentials/status", wanted, "credentials:write")
    assert again.status_code == 200
    bits = decode_list(json.loads(row.signed)["credentialSubject"]["encodedList"])
    assert is_set(bits, int(signed["credentialStatus"]["statusListIndex"]))


def test_a_document_is_forgotten_after_an_hour(web: Web) -> None:
    """Its content; not what withdraws it."""
    signed = issue(web, document(web)).json["verifiableCredential"]
    web.product.time.move_to(web.product.time() + timedelta(minutes=61))
    web.product.promise("tasks.cleanup.purge_expired_sessions")
    web.product.run()
    (row,) = web.product.rows(tables.signed_documents)
    assert (row.unsigned, row.signed) == (None, None)
    assert row.entry is not None
    assert verified(web, signed).json["verified"] is True


@pytest.mark.parametrize(
    "members",
    [
        {"issuer": "did:web:elsewhere.example"},
        {"extra": "undefined"},
        {"type": ["VerifiableCredential", "Undefined"]},
        {"@context": [canonical.VC_V2, "https://elsewhere.example/context"]},
        {"proof": {"type": "DataIntegrityProof"}},
    ],
)
def test_what_cannot_be_signed_is_refused(web: Web, members: dict[str, Any]) -> None:
    """400, and nothing is stored or promised."""
    answer = web.post(PATH, {"credential": document(web, **members)}, "credentials:write")
    assert (answer.status_code, answer.json["code"]) == (400, "request_invalid")
    assert web.product.rows(tables.signed_documents) == []


def test_nobody_signs_without_the_switch_the_key_and_the_scope(web: Web) -> None:
    """404 while it is off; 401 without a key; 403 with another scope; 503 while nobody signs."""
    unsigned = {"credential": document(web)}
    off = web_of(web.product)
    assert off.post(PATH, unsigned, "credentials:write").status_code == 404
    assert web.client.post(PATH, json=unsigned).status_code == 401
    assert web.post(PATH, unsigned, "credentials:read").status_code == 403


def test_a_request_does_not_wait_for_ever(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After when no worker is there."""
    monkeypatch.setattr("conferral.web.vc_api.SIGNING_SECONDS", 0.2)
    answer = web.post(PATH, {"credential": document(web)}, "credentials:write")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
