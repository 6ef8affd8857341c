# SPDX-License-Identifier: Apache-2.0
"""Signing keys over HTTP: asked for by an administrator, made by a worker, published for strangers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conferral.services import resigning
from support.issuer_keys import DID, K1, K2, PATIENCE, issue, named_product_on
from support.product import product_on
from support.web import Web, web_of

DID_DOCUMENT = "/issuers/demo/did.json"
ROTATE = "/v1/signing-keys/rotate"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """The application of an issuer named by did:web."""
    with named_product_on("sqlite", tmp_path) as product:
        yield web_of(product)


def post(
    web: Web, path: str, document: object, *scopes: str, **headers: str
) -> tuple[int, dict[str, object]]:
    """POST with a live key; return status and JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    key = web.key(*scopes, mode="live")
    answer = web.client.post(path, json=document, headers={**key, **named, "Host": "creds.example.org"})
    return answer.status_code, answer.get_json()


def get(web: Web, path: str, *scopes: str) -> tuple[int, dict[str, object]]:
    """GET with a live key; return status and JSON."""
    headers = {**web.key(*scopes, mode="live"), "Host": "creds.example.org"}
    answer = web.client.get(path, headers=headers)
    return answer.status_code, answer.get_json()


def test_the_did_document_lists_every_key_when_it_is_fetched(web: Web) -> None:
    """application/did+json, kept for an hour, readable from every page; a rotated key stays in it."""
    issue(web.product)
    assert post(web, ROTATE, {}, "admin")[0] == 202
    web.product.run()
    answer = web.client.get(DID_DOCUMENT, headers={"Host": "creds.example.org"})
    assert answer.mimetype == "application/did+json"
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    document = answer.get_json(force=True)
    assert document["@context"] == ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"]
    assert (document["id"], document["assertionMethod"]) == (DID, [K1, K2])
    assert {method["type"] for method in document["verificationMethod"]} == {"Multikey"}
    assert {method["controller"] for method in document["verificationMethod"]} == {DID}


def test_a_rotation_is_a_task_when_an_administrator_asks_for_it(web: Web) -> None:
    """202 with a task to look at; twice is the same task; the list says what became of each key."""
    issue(web.product)
    status, first = post(web, ROTATE, {}, "admin")
    again = post(web, ROTATE, {}, "admin")[1]
    assert (status, first["task_id"]) == (202, again["task_id"])
    web.product.run()
    seen = get(web, f"/tasks/{first['task_id']}/status", "credentials:read")[1]
    assert (seen["state"], seen["result"]) == (
        "SUCCESS", {"current": K2, "replaced": K1, "state": "retired"},
    )  # fmt: skip
    keys = get(web, "/v1/signing-keys", "audit:read")[1]["data"]
    assert isinstance(keys, list)
    assert [(key["number"], key["state"]) for key in keys] == [(1, "retired"), (2, "current")]
    assert all(key["public_key_multibase"].startswith("z6Mk") for key in keys)


def test_a_repeated_request_rotates_once_when_it_carries_the_same_idempotency_key(web: Web) -> None:
    """The answer of the first is given again, also after the rotation is done."""
    issue(web.product)
    first = post(web, ROTATE, {}, "admin", Idempotency_Key="one")
    web.product.run()
    assert post(web, ROTATE, {}, "admin", Idempotency_Key="one") == first
    web.product.run()
    keys = get(web, "/v1/signing-keys", "audit:read")[1]["data"]
    assert isinstance(keys, list)
    assert len(keys) == 2


def test_a_withdrawn_key_leaves_the_document_when_an_administrator_says_since_when(web: Web) -> None:
    """A day or a time is understood; the key is gone from the document, its date is in the list."""
    (row,) = issue(web.product)
    status, asked = post(web, "/v1/signing-keys/k1/withdraw", {"compromised_at": "2025-12-31"}, "admin")
    assert status == 202, asked
    web.product.run(patience_seconds=PATIENCE)
    document = web.client.get(DID_DOCUMENT, headers={"Host": "creds.example.org"}).get_json(force=True)
    assert document["assertionMethod"] == [K2]
    assert [method["id"] for method in document["verificationMethod"]] == [K2]
    keys = get(web, "/v1/signing-keys", "audit:read")[1]["data"]
    assert isinstance(keys, list)
    assert (keys[0]["state"], keys[0]["compromised_at"]) == ("withdrawn", "2025-12-31T00:00:00.000Z")
    assert web.product.credential(row.id).revision == 2
    assert len(web.product.runs_of(resigning.TASK)) > 0


@pytest.mark.parametrize(
    ("number", "since", "status", "code"),
    [
        ("9", "2025-12-31", 404, "not_found"),
        ("k", "2025-12-31", 404, "not_found"),
        ("99999999999999999999", "2025-12-31", 404, "not_found"),
        ("1", "yesterday", 422, "validation_failed"),
        ("1", "2025-12-31T10:00:00", 422, "validation_failed"),
        ("1", "2999-01-01", 422, "validation_failed"),
    ],
)
def test_a_withdrawal_is_refused_when_its_words_are_wrong(
    web: Web, number: str, since: str, status: int, code: str
) -> None:
    """The answer names what is wrong, and nothing changes."""
    issue(web.product)
    found = post(web, f"/v1/signing-keys/{number}/withdraw", {"compromised_at": since}, "admin")
    assert (found[0], found[1]["code"]) == (status, code)
    keys = get(web, "/v1/signing-keys", "audit:read")[1]["data"]
    assert isinstance(keys, list)
    assert [key["state"] for key in keys] == ["current"]


def test_keys_are_out_of_reach_when_the_scope_is_missing(web: Web) -> None:
    """Changing keys needs `admin`, reading them `audit:read`; neither is among the usual scopes."""
    issue(web.product)
    assert post(web, ROTATE, {})[1]["code"] == "scope_missing"
    assert post(web, ROTATE, {}, "audit:read")[1]["code"] == "scope_missing"
    assert get(web, "/v1/signing-keys")[1]["code"] == "scope_missing"


def test_a_did_key_says_why_not_when_its_key_should_change(tmp_path: Path) -> None:
    """409 with a stable code; the document can be exported, though no address serves it."""
    with product_on("sqlite", tmp_path) as product:
        web = web_of(product)
        issue(product)
        refused = web.post(ROTATE, {}, "admin")
        assert (refused.status_code, refused.get_json()["code"]) == (409, "did_key_fixed")
        exported = web.get("/v1/signing-keys/export", "audit:read")
        assert exported.mimetype == "application/did+json"
        assert exported.get_json(force=True)["id"].startswith("did:key:z6Mk")
        assert web.client.get(DID_DOCUMENT).status_code == 404
