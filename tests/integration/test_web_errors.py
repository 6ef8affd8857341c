# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent, and whatever breaks: a problem document, never a trace, never somebody's data."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from conferral.store.engine import Database
from conferral.web.app import create_app
from conferral.web.gate import scope_of
from conferral.web.limits import WRITE
from conferral.wiring import routing_of
from support.product import product_on
from support.web import ISSUE, Web, body, web_of

PROBLEM_KEYS = {
    "type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "docs", "errors",
}  # fmt: skip


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Yield the application on SQLite, for many requests that change little."""
    folder = tmp_path_factory.mktemp("errors")
    with product_on("sqlite", folder, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


def refused(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is this problem, and return the document."""
    assert answer.status_code == status, answer.get_data(as_text=True)
    assert answer.mimetype == "application/problem+json"
    document = json.loads(answer.data)
    assert set(document) >= PROBLEM_KEYS
    assert (document["status"], document["code"]) == (status, code)
    assert document["request_id"] == answer.headers["Request-Id"]
    return dict(document)


def test_unknown_addresses_and_methods_are_problems(web: Web) -> None:
    """Flask's own pages would be HTML."""
    refused(web.client.get("/nothing/here"), 404, "not_found")
    refused(web.client.get("/v1/nothing", headers={"Accept": "text/html"}), 404, "not_found")
    answer = web.client.delete(ISSUE)
    refused(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_a_person_gets_a_page_instead(web: Web) -> None:
    """With the same status, and the request id to quote."""
    answer = web.client.get("/nothing/here", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert answer.headers["Request-Id"] in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"{", "application/json", 400, "json_invalid"),
        (b"", "application/json", 400, "json_invalid"),
        (b"[]", "application/json", 400, "json_invalid"),
        (b'"{}"', "application/json", 400, "json_invalid"),
        (b'{"a": NaN}', "application/json", 400, "json_invalid"),
        (b'{"a": "\\ud800"}', "application/json", 400, "json_invalid"),
        (b"\xff\xfe", "application/json", 400, "json_invalid"),
        (b"[" * 100_000, "application/json", 400, "json_invalid"),
        (b"{}", "text/plain", 415, "media_type_unsupported"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "media_type_unsupported"),
        (b" " * 1_100_000, "application/json", 413, "body_too_large"),
    ],
)
def test_a_body_that_is_not_ours_is_refused(
    web: Web, content: bytes, media_type: str, status: int, code: str
) -> None:
    """By what is wrong with it: type, syntax, encoding, size."""
    refused(web.client.post(ISSUE, data=content, content_type=media_type, headers=web.key()), status, code)


def test_every_wrong_value_is_named_and_none_is_repeated(web: Web) -> None:
    """A 422 that quotes what was sent would put a person's data into the logs of others."""
    document = {
        "template_id": "diploma",
        "recipient": {"name": 4711, "email": "x" * 3_000, "nick": "SECRET-NICK"},
        "fields": {"course": ["SECRET-COURSE"]},
        "colour": "SECRET-COLOUR",
    }
    answer = web.post(ISSUE, document)
    problem = refused(answer, 422, "validation_failed")
    assert {(one["pointer"], one["code"]) for one in problem["errors"]} == {
        ("#/recipient/name", "field_invalid"),
        ("#/recipient/email", "field_too_long"),
        ("#/recipient/nick", "field_unknown"),
        ("#/fields/course", "field_invalid"),
        ("#/colour", "field_unknown"),
    }
    assert "SECRET" not in answer.get_data(as_text=True)
    assert "4711" not in answer.get_data(as_text=True)


def test_an_empty_request_is_told_what_is_missing(web: Web) -> None:
    """Both at once."""
    problem = refused(web.post(ISSUE, {}), 422, "validation_failed")
    assert [one["pointer"] for one in problem["errors"]] == ["#/template_id", "#/recipient"]


def test_an_id_and_a_credential_at_once_are_refused(web: Web) -> None:
    """Nobody could say which was meant."""
    document = {**body(), "credential_id": "cred_" + "0" * 26}
    refused(web.post(ISSUE, document), 422, "validation_failed")


@pytest.mark.parametrize("text", ["\x00", "x\x00y", "../../etc/passwd", "%00", "é" * 300, "' OR 1=1 --"])
def test_odd_ids_are_not_found(web: Web, text: str) -> None:
    """Neither database is asked with them."""
    from urllib.parse import quote

    odd = quote(text, safe="")
    for path in (
        f"/v1/credentials/{odd}", f"/v1/batches/{odd}", f"/v1/webhook-endpoints/{odd}",
        f"/v1/test/mailbox/{odd}", f"/tasks/{odd}/status", f"/c/{odd}", f"/c/{odd}/base.pdf", f"/u/{odd}",
        f"/issuers/{odd}/did.json", f"/status/{odd}", f"/problems/{odd}",
    ):  # fmt: skip
        refused(web.get(path), 404, "not_found")


def test_keys_are_asked_for_and_checked(web: Web) -> None:
    """Missing, mistyped, unknown, revoked in words; 401 says how to authenticate."""
    assert web.client.get("/v1/credentials").headers["WWW-Authenticate"].startswith("Bearer")
    refused(web.client.get("/v1/credentials"), 401, "key_missing")
    good = web.key()["Authorization"]
    for wrong in (good[:-1], good + "x", "Bearer x", good.replace("_test_", "_live_")):
        refused(web.client.get("/v1/credentials", headers={"Authorization": wrong}), 401, "key_invalid")


def test_a_scope_that_is_missing_is_named(web: Web) -> None:
    """403, before the body is looked at."""
    problem = refused(web.post(ISSUE, {"nonsense": 1}, "credentials:read"), 403, "scope_missing")
    assert "credentials:write" in problem["detail"]


def test_every_operation_of_the_api_needs_a_scope(web: Web) -> None:
    """A route that forgot to say what it needs is a 404, and this test names it."""
    described = web.client.get("/openapi.json").json["paths"]
    assert len(described) > 20
    open_routes = {"/healthz", "/readyz", "/openapi.json"}
    for rule in web.app.url_map.iter_rules():
        if rule.rule.startswith(("/v1/", "/credentials/", "/tasks/")):
            assert scope_of(web.app.view_functions[rule.endpoint]) is not None, rule.rule
            assert rule.rule.replace("<", "{").replace(">", "}") in described
        assert rule.rule not in described or rule.rule not in open_routes


def test_a_quota_that_is_used_up_says_when_to_come_back(web: Web) -> None:
    """429 with the registered type, the violated policy and Retry-After."""
    from conferral.services import tenancy

    headers = web.key("webhooks:write")
    handle = headers["Authorization"].split("_")[2]
    with web.product.rt.database.snapshot() as session:
        row = tenancy.tenancy.api_key_by_handle(session, handle)
    assert row is not None
    limiter = web.app.extensions["conferral"].limiter
    for _ in range(WRITE.quota):
        taken = limiter.take(WRITE, f"key:{row.id}")
    if taken.resets_in <= 1:  # the next window begins right now: fill that one
        for _ in range(WRITE.quota):
            limiter.take(WRITE, f"key:{row.id}")
    answer = web.client.post("/v1/webhook-endpoints", json={}, headers=headers)
    problem = refused(answer, 429, "quota_exceeded")
    assert problem["type"].endswith("#quota-exceeded")
    assert problem["violated-policies"] == ["write"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["RateLimit"].startswith('"write";r=0;t=')


def test_an_id_of_the_client_is_taken_over_if_it_is_sane(web: Web) -> None:
    """So that both sides' logs meet; what could forge a log line is replaced."""

    def answered(given: str) -> str:
        return web.client.get("/healthz", headers={"Request-Id": given}).headers["Request-Id"]

    assert answered("my-trace.42") == "my-trace.42"
    for odd in ("short", "a b c d e f", "x" * 200, "<script>alert"):
        assert answered(odd) != odd


def test_every_answer_carries_the_security_headers(web: Web) -> None:
    """Pages, files, API, errors."""
    for path in ("/", "/v1/credentials", "/nothing", "/static/conferral.css", "/c/unknown", "/console/login"):
        with web.client.get(path) as answer:
            headers = answer.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Referrer-Policy"] == "same-origin", path
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin", path
    assert web.client.get("/v1/credentials").headers["Cache-Control"] == "no-store"


def test_a_host_that_is_not_ours_is_refused(web: Web) -> None:
    """No link and no cache entry is ever built from a forged Host."""
    refused(web.client.get("/", headers={"Host": "evil.example"}), 400, "request_invalid")


def test_a_database_that_is_away_is_said_and_told_to_come_back(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """503 with Retry-After; the connection's address and password stay here."""
    url = "postgresql://conferral:hunter2@127.0.0.1:1/nowhere"
    database = Database(url, routing=routing_of(web.product.settings))
    runtime = dataclasses.replace(web.product.rt, database=database)
    client = create_app(dataclasses.replace(web.product.settings, role="web"), runtime).test_client()
    with caplog.at_level(logging.INFO):
        answer = client.post(ISSUE, json=body(), headers=web.key())
        refused(answer, 503, "database_unavailable")
        assert answer.headers["Retry-After"]
        ready = client.get("/readyz")
    assert (ready.status_code, ready.json["checks"]["database"]) == (503, "failed")
    page = client.get("/c/" + "2" * 22, headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (503, "text/html")
    said = answer.get_data(as_text=True) + page.get_data(as_text=True) + caplog.text
    assert "hunter2" not in said
    assert "Traceback" not in answer.get_data(as_text=True)
    database.dispose()


def test_an_unexpected_error_shows_nothing_but_its_request_id(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """The trace is in the log."""
    app = create_app(dataclasses.replace(web.product.settings, role="web"), web.product.rt)

    @app.get("/breaks")
    def breaks() -> str:
        raise RuntimeError("postgresql://user:hunter2@db")

    answer = app.test_client().get("/breaks")
    refused(answer, 500, "internal")
    assert "hunter2" not in answer.get_data(as_text=True)
    assert any(record.message == "request_raised" for record in caplog.records)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["template_id", "recipient", "fields", "issued_on", "expires_on", "external_id", "credential_id",
     "name", "email", "locale", "course", "rows", "url", "event_types", "filter", "preview", "task"]
)  # fmt: skip
NEARLY = st.recursive(
    st.sampled_from(
        ["diploma", "ada@example.com", "Ada", "2026-02-30", "\x00", "", "\u202e", "cred_" + "0" * 26]
    )
    | st.text(max_size=20)
    | st.none()
    | st.integers(),
    lambda inner: st.dictionaries(NAMES, inner, max_size=5) | st.lists(inner, max_size=3),
    max_leaves=15,
)
ADDRESSES = (
    ISSUE, "/v1/credentials", "/v1/batches", "/v1/webhook-endpoints",
    "/v1/ops/dead-letters/replay", "/v1/ops/dead-letters/discard",
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(ADDRESSES), document=st.dictionaries(NAMES, JSON | NEARLY, max_size=6) | JSON)
def test_no_document_breaks_the_api(web: Web, path: str, document: Any) -> None:
    """Accepted, or refused as a problem; never a 500."""
    headers = web.key("credentials:write", "batches:write", "webhooks:write", "ops:write")
    for number in range(1):
        web.app.extensions["conferral"].limiter._counts.clear()
        content = json.dumps(document)
        answer = ask(web.client, path, content, {**headers, "Idempotency-Key": f"{number}{hash(content)}"})
        assert answer.status_code < 500, answer.get_data(as_text=True)
        if answer.status_code >= 400:
            assert answer.mimetype == "application/problem+json"
        assert "Traceback" not in answer.get_data(as_text=True)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(["/v1/credentials", "/v1/batches", "/v1/events", "/v1/test/mailbox", "/", "/c"]),
    query=st.dictionaries(
        st.sampled_from(["cursor", "limit", "q", "state", "updated_since", "external_id", "code", "format"]),
        st.text(max_size=30),
    ),
)
def test_no_query_breaks_a_list(web: Web, path: str, query: dict[str, str]) -> None:
    """Neither a cursor of somebody's making nor a NUL."""
    web.app.extensions["conferral"].limiter._counts.clear()
    answer = web.client.get(path, query_string=query, headers=web.key())
    assert answer.status_code < 500, answer.get_data(as_text=True)


def ask(client: FlaskClient, path: str, content: str, headers: dict[str, str]) -> TestResponse:
    """POST a text as JSON."""
    return client.post(path, data=content.encode(), content_type="application/json", headers=headers)
