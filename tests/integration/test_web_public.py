# SPDX-License-Identifier: Apache-2.0
"""What a stranger sees: the page behind the QR code, the files, what foreign verifiers fetch."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from conferral.domain import checkpoint, credential
from conferral.store import tables
from support.product import product_on
from support.web import ISSUE, Web, body, stand_in_order, web_of, words

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Yield the application on SQLite."""
    with product_on("sqlite", tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


def issued(web: Web, **more: Any) -> Any:
    """Issue a credential and return its row."""
    made = web.post(ISSUE, body(**more))
    assert made.status_code == 202, made.json
    web.product.run()
    return web.product.credential(made.json["credential_id"])


def page(web: Web, token: str) -> str:
    """Return the page of a token as a browser gets it."""
    answer = web.client.get(f"/c/{token}", headers=HTML)
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    return answer.get_data(as_text=True)


def test_the_page_says_the_verdict_before_everything_else(web: Web) -> None:
    """Valid, the sentence, who and what and by whom; then the checks; then the details."""
    row = issued(web)
    said = words(page(web, row.token))
    parts = (
            "Valid", "This certificate is genuine and in force.", "Ada Lovelace", "Applied Statistics",
            "Demo University", "The signature is genuine", "It comes from the issuer it names",
            "It has not been withdrawn", "It is within its period", "It is entered in the public log",
            "Technical details",
        )  # fmt: skip
    assert stand_in_order(said, parts)
    assert "Test mode." in said


def test_the_page_needs_no_script_and_nothing_from_elsewhere(web: Web) -> None:
    """Every script, style and picture is ours; everything said stands in the HTML."""
    html = page(web, issued(web).token)
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', html)
    assert loaded
    assert all(address.startswith("/") for address in loaded)


def test_a_program_gets_the_same_verdict_as_data(web: Web) -> None:
    """By what it accepts, or by asking for it."""
    row = issued(web)
    by_accept = web.client.get(f"/c/{row.token}", headers={"Accept": "application/json"})
    by_query = web.client.get(f"/c/{row.token}?format=json", headers=HTML)
    assert by_accept.json == by_query.json
    assert by_accept.json["verdict"] == "VALID"
    assert [check["id"] for check in by_accept.json["checks"]] == [
        "signature", "issuer", "status", "validity", "anchor",
    ]  # fmt: skip
    assert all(check["ok"] is True for check in by_accept.json["checks"])
    assert by_accept.json["credential"]["recipient"] == "Ada Lovelace"
    assert by_accept.headers["Access-Control-Allow-Origin"] == "*"
    assert page(web, row.token)  # and people still get a page


@pytest.mark.parametrize(
    ("state", "verdict", "sentence"),
    [
        (credential.REVOKED, "REVOKED", "withdrawn by the issuer"),
        (credential.SUSPENDED, "SUSPENDED", "paused by the issuer"),
        (credential.SUPERSEDED, "REPLACED", "There is a newer version"),
    ],
)
def test_a_credential_that_is_not_in_force_says_so(web: Web, state: str, verdict: str, sentence: str) -> None:
    """At the next load, and without a picture that looks like a valid one."""
    row = issued(web)
    with web.product.rt.database.transaction() as session:
        session.execute(
            update(tables.credentials).where(tables.credentials.c.id == row.id).values(state=state)
        )
    html = page(web, row.token)
    assert sentence in words(html)
    assert web.client.get(f"/c/{row.token}?format=json").json["verdict"] == verdict
    picture = web.client.get(f"/c/{row.token}/preview.png").status_code
    assert ("preview.png" in html, picture) == ((True, 200) if state == "suspended" else (False, 404))


def test_a_credential_outside_of_its_period_says_the_date(web: Web) -> None:
    """EXPIRED and NOT YET VALID are genuine."""
    old = issued(web, issued_on="2024-01-01", expires_on="2025-10-01")
    assert "it ended on 1 Oct 2025" in words(page(web, old.token))
    early = issued(web, issued_on="2026-10-01", external_id="early")
    assert "valid from 1 Oct 2026" in words(page(web, early.token))


def test_a_signature_that_is_broken_shows_nothing_else(web: Web) -> None:
    """What the document says besides is nobody's word: no name, no files, one check."""
    row = issued(web)
    document = json.loads(web.product.rt.blobs.get(row.vc_sha256))
    document["credentialSubject"]["achievement"]["name"] = "Something better"
    forged = web.product.rt.blobs.put(json.dumps(document).encode())
    with web.product.rt.database.transaction() as session:
        session.execute(
            update(tables.credentials).where(tables.credentials.c.id == row.id).values(vc_sha256=forged)
        )
    said = words(page(web, row.token))
    assert "Tampered with" in said
    assert "Ada Lovelace" not in said
    assert "Download PDF" not in said
    assert "It comes from the issuer" not in said


def test_unknown_and_not_yet_issued_look_alike(web: Web) -> None:
    """404 with one text: nobody learns that something is on its way."""
    made = web.post(ISSUE, body()).json
    waiting = web.product.credential(made["credential_id"]).token
    answers = []
    for token in (waiting, "2" * 22, "x"):
        for suffix in ("", "/base.pdf", "/certificate.pdf", "/credential.json", "/proof", "/preview.png"):
            answer = web.client.get(f"/c/{token}{suffix}")
            assert answer.status_code == 404
            answers.append({**answer.json, "request_id": "", "instance": ""})
    assert all(answer == answers[0] for answer in answers)
    html = web.client.get(f"/c/{waiting}", headers=HTML)
    assert (html.status_code, html.mimetype) == (404, "text/html")


def test_names_are_text_and_never_markup(web: Web) -> None:
    """Whatever somebody is called."""
    name = '<script>alert(1)</script> "O\'Hara" {{7*7}}'
    row = issued(web, recipient={"name": name, "email": "x@example.com"})
    html = page(web, row.token)
    assert "<script>alert" not in html
    assert "49" not in words(html).partition("Technical")[0].partition("Awarded to")[2][:80]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_files_are_what_was_signed_and_readable_from_any_page(web: Web) -> None:
    """PDF, base PDF and credential, each with CORS, an ETag, and 304 for who has it."""
    row = issued(web)
    final = web.client.get(f"/c/{row.token}/certificate.pdf")
    base = web.client.get(f"/c/{row.token}/base.pdf")
    signed = web.client.get(f"/c/{row.token}/credential.json")
    assert final.data[: row.base_length] == base.data
    assert len(base.data) == row.base_length
    assert signed.mimetype == "application/vc"
    assert signed.data in final.data
    for answer in (final, base, signed):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        known = web.client.get(answer.request.path, headers={"If-None-Match": answer.headers["ETag"]})
        assert known.status_code == 304
    (resource,) = json.loads(signed.data)["relatedResource"]
    assert resource["id"].endswith(f"/c/{row.token}/base.pdf")


def test_the_proof_leads_to_the_published_checkpoint(web: Web) -> None:
    """A stranger needs the credential, the proof, and the log's key."""
    row = issued(web)
    proof = web.client.get(f"/c/{row.token}/proof").get_data(as_text=True)
    note = web.client.get("/test-log/checkpoint").get_data(as_text=True)
    key = web.client.get("/test-log/vkey").get_data(as_text=True).strip()
    assert note in proof
    name, _, _ = key.partition("+")
    assert note.startswith(f"{name}\n")
    assert checkpoint.verify(note, [checkpoint.parse_vkey(key)])
    assert web.client.get("/log/checkpoint").status_code == 404
    assert web.client.get("/log/vkey").status_code == 404


def test_the_picture_is_the_certificate_and_drawn_once(web: Web) -> None:
    """PNG of the size the page announces; the second time it is remembered."""
    row = issued(web)
    first = web.client.get(f"/c/{row.token}/preview.png")
    assert first.mimetype == "image/png"
    width, height = struct.unpack(">II", first.data[16:24])
    announced = re.search(r'preview\.png" width="(\d+)" height="(\d+)"', page(web, row.token))
    assert announced is not None
    assert (width, height) == (int(announced[1]), int(announced[2]))
    web.product.rt.renderer.close()
    assert web.client.get(f"/c/{row.token}/preview.png").data == first.data


def test_the_status_list_of_a_credential_is_served(web: Web) -> None:
    """503 with Retry-After before its first signature, then the signed list."""
    number = web.product.credential(web.post(ISSUE, body()).json["credential_id"]).status_list_number
    early = web.client.get(f"/status/{number}")
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")
    assert early.mimetype == "application/problem+json"
    web.product.run()
    served = web.client.get(f"/status/{number}")
    assert served.mimetype == "application/vc"
    assert served.headers["Cache-Control"] == "public, max-age=300"
    assert served.headers["Access-Control-Allow-Origin"] == "*"
    assert json.loads(served.data)["credentialSubject"]["type"] == "BitstringStatusList"
    assert web.client.get(f"/status/{number + 1000}").status_code == 404
    assert web.client.get(f"/status/{2**63}").status_code == 404


def test_a_did_document_is_there_for_issuers_named_by_the_web_only(web: Web) -> None:
    """Test mode is named by its key."""
    issued(web)
    assert web.client.get("/issuers/demo/did.json").status_code == 404


def test_one_click_ends_the_mail_of_an_organisation(web: Web) -> None:
    """Looking changes nothing; the POST of a mail program needs neither cookie nor token (RFC 8058)."""
    row = issued(web)
    asked = web.client.get(f"/u/{row.token}", headers=HTML)
    assert "Unsubscribe" in asked.get_data(as_text=True)
    assert web.product.rows(tables.suppressions) == []
    clicked = web.client.post(f"/u/{row.token}", data={"List-Unsubscribe": "One-Click"})
    assert clicked.status_code == 200
    assert web.client.post(f"/u/{row.token}").status_code == 200
    assert len(web.product.rows(tables.suppressions)) == 1
    before = len(web.product.mailbox())
    second = issued(web, external_id="second")
    assert second.state == "issued"
    assert len(web.product.mailbox()) == before
    unknown = web.client.post("/u/" + "2" * 22)
    assert unknown.status_code == 404


def test_a_typed_link_leads_to_its_page(web: Web) -> None:
    """Whole, or only its end; nonsense is told so, and leads nowhere else."""
    token = issued(web).token
    for typed in (token, f"http://localhost/c/{token}", f"localhost/c/{token}/", f"  {token} "):
        answer = web.client.get("/c", query_string={"code": typed})
        assert (answer.status_code, answer.headers["Location"]) == (302, f"/c/{token}")
    wrong = web.client.get("/c", query_string={"code": 'https://evil.example/"><b>'})
    assert wrong.status_code == 200
    assert "<b>" not in wrong.get_data(as_text=True)
    assert "not a link of ours" in words(wrong.get_data(as_text=True))


def test_strangers_are_slowed_down_by_address(web: Web) -> None:
    """Sixty looks a minute; forged forwarding headers do not make somebody new."""
    token = issued(web).token
    codes = [
        web.client.get(f"/c/{token}", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
        for number in range(130)  # two windows may share them
    ]
    assert 429 in codes
    assert codes[:60].count(200) == 60


def test_every_error_code_has_a_page(web: Web) -> None:
    """The `type` of a problem document can be opened."""
    problem = web.client.get("/v1/credentials").json
    path = problem["type"].removeprefix(web.product.rt.public_url)
    said = words(web.client.get(path, headers=HTML).get_data(as_text=True))
    assert "key_missing" in said
    assert "Authorization: Bearer" in said
