# SPDX-License-Identifier: Apache-2.0
"""`/verify`: what strangers bring, as a form without scripts, as JSON, as a raw body; what it may cost."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pikepdf
import pytest

from conferral.adapters import document_checker
from conferral.domain import canonical
from conferral.domain.pdf_attachment import attach
from conferral.web.public import uploads
from support.brought import HTML, JSON, Brought, foreign_pdf, resaved, two_certificates, with_text_changed
from support.web import words


@pytest.fixture(scope="module")
def product_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brought]:
    """Yield the application with two certificates."""
    with two_certificates(tmp_path_factory.mktemp("verify")) as made:
        yield made


@pytest.fixture
def brought(product_web: Brought, monkeypatch: pytest.MonkeyPatch) -> Brought:
    """Yield it without the limit of requests, which has a test of its own."""
    monkeypatch.setattr("conferral.web.public.answers.limit", lambda: None)
    return product_web


class Endless(io.RawIOBase):
    """A form with a PDF that never ends, and without a length."""

    def __init__(self) -> None:
        self.read_bytes = 0

    def readinto(self, buffer: Any) -> int:
        """Fill what is asked for."""
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%PDF-'
        count = len(buffer)
        buffer[:] = ((b"" if self.read_bytes else head) + b"x" * count)[:count]
        self.read_bytes += count
        return count

    def readable(self) -> bool:
        """Say that it can be read."""
        return True


def test_the_original_is_valid_and_leads_to_its_page(brought: Brought) -> None:
    """As PDF, as JSON in any spelling, pasted, as a raw body: one verdict."""
    pretty = json.dumps(brought.document(), indent=2, ensure_ascii=False)
    answers = [
        brought.bring(brought.pdfs[0]),
        brought.bring(pretty.encode(), "credential.json"),
        brought.web.client.post("/verify", data={"text": pretty}, headers=JSON),
        brought.raw(brought.documents[0], "application/vc"),
        brought.raw(brought.pdfs[0], "application/pdf"),
    ]  # fmt: skip
    for answer in answers:
        assert answer.status_code == 200
        assert answer.json["verdict"] == "VALID"
        assert answer.json["credential"]["recipient"] == "Ada Lovelace"
        assert answer.json["links"]["page"].endswith(brought.rows[0].token)
    assert [check["id"] for check in answers[0].json["checks"]][:2] == ["signature", "pdf_digest"]
    html = brought.bring(brought.pdfs[0], Accept=HTML["Accept"]).get_data(as_text=True)
    assert "This certificate is genuine and in force." in words(html)
    assert f'href="/c/{brought.rows[0].token}"' in html


def test_the_form_needs_no_script_and_carries_no_secret(brought: Brought) -> None:
    """A plain form with one file and one text; nothing on it tells one reader from another."""
    html = brought.web.client.get("/verify", headers=HTML).get_data(as_text=True)
    assert re.search(r'<form[^>]+action="/verify" method="post" enctype="multipart/form-data"', html)
    assert 'type="hidden"' not in html
    assert "Set-Cookie" not in brought.web.client.get("/verify", headers=HTML).headers


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda b: with_text_changed(b.pdfs[0]), "pages were changed"),
        (lambda b: resaved(b.pdfs[0]), "saved again"),
        (lambda b: foreign_pdf(b.documents[0]), "put into another PDF"),
        (lambda b: b.pdfs[0] + b"\n% x\n%%EOF\n", "added to the PDF"),
        (
            lambda b: (
                b.pdfs[1][: b.rows[1].base_length] + foreign_pdf(b.documents[0])[9:]
            ),  # its pages, somebody else's credential
            "pages of another certificate",
        ),
    ],
    ids=["text", "resaved", "foreign", "extended", "swapped"],
)
def test_a_pdf_that_is_not_the_one_issued_is_named_for_what_it_is(
    brought: Brought, make: Any, says: str
) -> None:
    """The credential inside is genuine; the file is not; the original has a page."""
    told = brought.verdict(make(brought))
    assert told["verdict"] == "TAMPERED", told
    if told["checks"][0]["ok"]:
        assert says in told["checks"][1]["detail"]
        assert told["sentence"] == "The credential inside is genuine, this file is not the one issued."
    assert told["original"].endswith(f"/c/{brought.rows[0].token}")


def test_the_credential_of_another_in_genuine_pages_is_tampered(brought: Brought) -> None:
    """Ada's pages with Grace's genuine credential attached in the way we attach."""
    row = brought.rows[0]
    swapped = attach(brought.pdfs[0][: row.base_length], brought.documents[1], row.created_at)
    told = brought.verdict(swapped)
    assert told["verdict"] == "TAMPERED"
    assert "pages of another certificate" in told["checks"][1]["detail"]
    assert told["original"].endswith(f"/c/{brought.rows[1].token}")
    changed = attach(
        brought.pdfs[0][: row.base_length],
        brought.documents[0].replace(b"Ada Lovelace", b"Eve Lovelace"),
        row.created_at,
    )
    told = brought.verdict(changed)
    assert (told["verdict"], [check["id"] for check in told["checks"]]) == ("TAMPERED", ["signature"])
    assert "credential" not in told


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"not a credential", "There is no credential in it"),
        (b"[" * 10_000 + b"]" * 10_000, "There is no credential in it"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "There is no credential in it"),
        (b'{"id": "urn:uuid:1"}', "carries no signature"),
        (b"%PDF-1.7\nbroken", "not a PDF that can be read"),
        (b'{"id":"\xff"}', "There is no credential in it"),
        (b"PK\x03\x04nonsense", "zip"),
    ],
    ids=["empty", "blank", "text", "array-10000", "object-10000", "unsigned", "broken", "bytes", "zip"],
)
def test_a_file_without_a_credential_is_unknown_and_says_why(
    brought: Brought, content: bytes, says: str
) -> None:
    """Neutral: nothing is said against it, and nothing takes long."""
    began = time.monotonic()
    told = brought.verdict(content, "file")
    assert (told["verdict"], told["checks"]) == ("UNKNOWN", [])
    assert says in told["remark"]
    assert time.monotonic() - began < uploads.PATIENCE_SECONDS + 5


def test_a_foreign_pdf_is_unknown(brought: Brought) -> None:
    """A PDF without any credential, and one whose credential is of nobody we know."""
    with pikepdf.new() as made:
        made.add_blank_page()
        out = io.BytesIO()
        made.save(out)
    assert brought.verdict(out.getvalue())["remark"] == "There is no credential in this PDF."
    foreign = {**brought.document(), "id": "urn:uuid:11111111-1111-4111-8111-111111111111"}
    foreign["issuer"] = {"id": "did:web:elsewhere.example", "type": ["Profile"], "name": "Elsewhere"}
    told = brought.verdict(json.dumps(foreign).encode())
    assert told["verdict"] == "UNKNOWN"
    assert "does not know" in told["remark"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b'{"a": "' + b"x" * canonical.MAX_DOCUMENT_BYTES + b'"}', "application/json", 413, "body_too_large"),
        (b"%PDF-" + b"x" * 10_000_001, "application/pdf", 413, "body_too_large"),
        (b"GIF89a", "image/gif", 415, "media_type_unsupported"),
        (b"x" * 300_000, "application/octet-stream", 413, "body_too_large"),
        (b"text=" + b"x" * 900_000, "application/x-www-form-urlencoded", 413, "body_too_large"),
    ],
)
def test_what_is_too_large_or_of_another_kind_is_a_problem(
    brought: Brought, content: bytes, kind: str, status: int, code: str
) -> None:
    """413 and 415 as problem documents, before anything is parsed."""
    answer = brought.web.client.post("/verify", data=content, content_type=kind, headers=JSON)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.mimetype == "application/problem+json"


def test_a_large_file_in_the_form_is_refused_while_it_streams(brought: Brought) -> None:
    """A gigabyte is not read: the form's own limit ends it."""
    endless = Endless()
    answer = brought.web.client.post(
        "/verify",
        headers=JSON,
        environ_overrides={
            "CONTENT_TYPE": "multipart/form-data; boundary=b",
            "wsgi.input": io.BufferedReader(endless),
            "wsgi.input_terminated": True,
        },
    )
    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")
    assert 1_000_000 < endless.read_bytes < 12_000_000


def test_strangers_who_bring_too_much_are_slowed_down(product_web: Brought) -> None:
    """The limit of the pages: sixty a minute from one address."""
    codes = [
        product_web.web.client.post("/verify", data=b"{}", content_type="application/json").status_code
        for _ in range(130)
    ]
    assert 429 in codes
    assert codes[:40].count(200) == 40


def test_too_many_at_once_are_told_to_come_back(brought: Brought, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is a child process; pages that need none do not wait for one."""
    monkeypatch.setattr(uploads, "PATIENCE_SECONDS", 0.01)
    for _ in range(uploads.MOST_AT_ONCE):
        assert uploads._places.acquire(blocking=False)
    try:
        answer = brought.bring(brought.pdfs[0])
    finally:
        for _ in range(uploads.MOST_AT_ONCE):
            uploads._places.release()
    assert (answer.status_code, answer.json["code"]) == (429, "temporary_reduced_capacity")
    assert answer.headers["Retry-After"]


def test_a_poisoned_graph_ends_in_the_child_within_its_time(brought: Brought) -> None:
    """Blank nodes that look alike cost exponential time; the document is refused in seconds."""
    document = brought.document()
    twins = [{"type": ["Profile"], "name": "x"} for _ in range(60)]
    document["credentialSubject"]["achievement"]["creator"] = twins
    began = time.monotonic()
    told = brought.verdict(json.dumps(document).encode())
    assert told["verdict"] == "TAMPERED"
    assert time.monotonic() - began < document_checker.DEADLINE_SECONDS
