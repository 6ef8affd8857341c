# SPDX-License-Identifier: Apache-2.0
"""A CSV file sent to the API: what is good is issued once, what is bad comes back to be mended."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from werkzeug.test import TestResponse

from conferral.store.tables import batches, credentials
from support.product import product_on
from support.web import Web, web_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
HEADER = "Full name,E-mail,Course,Reference\n"
GOOD = "Ada,ada@alumni.example,Logic,s-1\n"
BAD = "Bob,bob@alumni,Logic,s-2\n"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Yield the application over a product on SQLite."""
    with product_on("sqlite", tmp_path) as product:
        yield web_of(product)


def send(web: Web, content: str | bytes, *, key: str | None = "one", **query: str) -> TestResponse:
    """Post a file."""
    body = content.encode() if isinstance(content, str) else content
    headers = {**web.key(), **({"Idempotency-Key": key} if key else {})}
    where = "/v1/batches/csv?" + urlencode({"template_id": "diploma", **query})
    return web.client.post(where, data=body, content_type="text/csv", headers=headers)


def test_one_wrong_row_stops_a_file_and_is_named(web: Web) -> None:
    """Row, column and cure; what to do with the others; nothing issued."""
    answer = send(web, HEADER + GOOD + BAD)
    assert answer.status_code == 422
    found = answer.get_json()
    assert found["code"] == "validation_failed"
    assert "skip_bad=true" in found["detail"]
    (error,) = found["errors"]
    assert (error["pointer"], error["code"]) == ("#/rows/2/E-mail", "email_invalid")
    assert error["detail"].startswith('row 2, column E-mail: "bob@alumni" is not an e-mail address')
    assert web.product.rows(batches) == []


def test_good_rows_are_issued_and_the_mended_rest_follows_without_doubling(web: Web) -> None:
    """Bad rows come back as CSV; mended and sent, with the good ones again, everybody has one credential."""
    content = HEADER + GOOD + BAD
    checked = send(web, content, key=None, dry_run="true").get_json()
    assert (checked["rows"], checked["ready"], checked["to_mend"], checked["batch_id"]) == (2, 1, 1, None)
    first = send(web, content, skip_bad="true")
    assert first.status_code == 202, first.get_json()
    assert (first.get_json()["ready"], first.get_json()["to_mend"]) == (1, 1)
    web.product.run()
    mended = checked["rows_to_mend"].replace("bob@alumni,", "bob@alumni.example,", 1) + GOOD.replace(
        "Ada", ",Ada", 1
    )
    second = send(web, mended, key="two").get_json()
    assert (second["rows"], second["ready"], second["issued_before"]) == (2, 1, 1)
    web.product.run()
    issued = web.product.rows(credentials)
    assert sorted((row.external_id, row.state) for row in issued) == [("s-1", "issued"), ("s-2", "issued")]
    assert send(web, content.replace(BAD, ""), key="three").status_code == 200


def test_the_same_request_again_is_answered_from_memory(web: Web) -> None:
    """One Idempotency-Key, one batch; another file under the same key is refused."""
    first = send(web, HEADER + GOOD)
    again = send(web, HEADER + GOOD)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.get_json() == first.get_json()
    assert len(web.product.rows(batches)) == 1
    assert send(web, HEADER + BAD).get_json()["code"] == "idempotency_key_reused"
    assert send(web, HEADER + GOOD, key=None).get_json()["code"] == "idempotency_key_required"


@pytest.mark.parametrize("name", ["graduates-messy-excel.csv", "graduates-cp1252.csv"])
def test_files_as_people_save_them_are_counted_whole(web: Web, name: str) -> None:
    """Every row is ready, to mend, or issued before."""
    found = send(web, (FIXTURES / name).read_bytes(), key=None, dry_run="true").get_json()
    assert found["rows"] == found["ready"] + found["to_mend"] + found["issued_before"]
    assert found["to_mend"] == (6 if "messy" in name else 0)


@pytest.mark.parametrize(
    ("content", "status", "code", "says"),
    [
        (b"", 422, "csv_unreadable", "empty"),
        (HEADER.encode(), 422, "csv_unreadable", "no row below"),
        (b"PK\x03\x04zzz", 422, "csv_unreadable", "workbook"),
        (b"Name\nAda\n", 422, "csv_column_missing", "recipient.email"),
        (HEADER.encode() + b"A,a@b.example,X,\n" * 10_001, 413, "too_many_rows", "10,000"),
        (b"x" * 50_000_001, 413, "body_too_large", ""),
    ],
    ids=["empty", "header", "workbook", "columns", "rows", "bytes"],
)
def test_a_file_that_is_none_is_refused_whole(
    web: Web, content: bytes, status: int, code: str, says: str
) -> None:
    """A code, a sentence, no batch."""
    answer = send(web, content)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert says in answer.get_json()["detail"]
    assert web.product.rows(batches) == []


def test_a_file_that_has_no_end_is_refused_at_its_bound(web: Web) -> None:
    """Without a Content-Length the bound is met while reading."""
    answer = web.client.post(
        "/v1/batches/csv?template_id=diploma",
        input_stream=io.BytesIO(b"x" * 50_000_100),
        content_type="text/csv",
        headers={**web.key(), "Idempotency-Key": "endless", "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert (answer.status_code, answer.get_json()["code"]) == (413, "body_too_large")


def test_another_media_type_or_query_is_refused_with_what_is_expected(web: Web) -> None:
    """The door says what it takes."""
    where = "/v1/batches/csv?template_id=diploma"
    answer = web.client.post(where, data=b"x", content_type="application/vnd.ms-excel", headers=web.key())
    assert (answer.status_code, answer.get_json()["detail"]) == (415, "send the body as text/csv")
    answer = send(web, HEADER, dryrun="1", dry_run="perhaps")
    assert {(error["pointer"], error["code"]) for error in answer.get_json()["errors"]} == {
        ("?dryrun", "field_unknown"),
        ("?dry_run", "field_invalid"),
    }
    answer = send(web, HEADER + GOOD, template_id="diplma")
    assert "did you mean 'diploma'?" in answer.get_json()["detail"]


def test_ids_that_contradict_each_other_stop_a_batch_of_json(web: Web) -> None:
    """A row may not vanish because another one has its external id."""

    def row(email: str, external_id: str) -> dict[str, object]:
        return {
            "recipient": {"name": "Ada", "email": email},
            "fields": {"course": "Logic"},
            "external_id": external_id,
        }

    rows = [row("a@alumni.example", "1"), row("b@alumni.example", "1"), row("c@alumni.example", "2")]
    answer = web.post("/v1/batches", {"template_id": "diploma", "rows": rows}, Idempotency_Key="a")
    assert [(one["pointer"], one["code"]) for one in answer.get_json()["errors"]] == [
        ("#/rows/1/external_id", "external_id_conflict")
    ]
    assert (
        web.post("/v1/batches", {"template_id": "diploma", "rows": rows[1:]}, Idempotency_Key="b").status_code
        == 202
    )
    web.product.run()
    answer = web.post("/v1/batches", {"template_id": "diploma", "rows": rows}, Idempotency_Key="c")
    assert "has other content" in answer.get_json()["errors"][0]["detail"]
    assert len(web.product.rows(credentials)) == 2
