# SPDX-License-Identifier: Apache-2.0
"""The API's description: whole, consistent, and true (`support.web` holds every answer against it)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.product import product_on
from support.web import ISSUE, Web, body, web_of


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Yield the application on SQLite."""
    folder: Path = tmp_path_factory.mktemp("reference")
    with product_on("sqlite", folder, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


@pytest.fixture(scope="module")
def document(web: Web) -> dict[str, Any]:
    """Return the description as a client gets it."""
    answer = web.client.get("/openapi.json")
    assert answer.status_code == 200
    return dict(answer.json)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every operation by its method and path."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """A dangling one would break every generator of clients."""
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    text = json.dumps(document)
    used = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert used
    assert used <= known


def test_every_operation_says_what_it_needs_and_gives(document: dict[str, Any]) -> None:
    """A summary, a scope, a good answer, problems as problem documents, an id of its own."""
    assert document["openapi"] == "3.1.0"
    names = []
    for name, operation in operations(document):
        names.append(operation["operationId"])
        assert operation["summary"], name
        assert operation["x-required-scope"], name
        assert operation["security"] == [{"api_key": []}], name
        assert any(status.startswith("2") for status in operation["responses"]), name
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], (name, status)
    assert len(names) == len(set(names))


def test_an_answer_that_is_not_described_would_be_noticed(web: Web) -> None:
    """The check of all the other tests can fail."""
    described = web_of(web.product)
    schemas = described.app.api_doc["components"]["schemas"]  # type: ignore[attr-defined]
    kept = schemas["AcceptedOut"]
    schemas["AcceptedOut"] = {**kept, "required": [*kept["required"], "nothing_like_it"]}
    assert described.post(ISSUE, body()).status_code == 500
    schemas["AcceptedOut"] = kept
    assert described.post(ISSUE, body()).status_code == 202
