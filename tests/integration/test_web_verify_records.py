# SPDX-License-Identifier: Apache-2.0
"""`/verify` beside the records: unlogged, withdrawn, replaced, older, erased; and nothing is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update

from conferral.domain import credential, vc
from conferral.services import signing_keys, verifying
from conferral.store import tables
from conferral.store.queries import evidence
from support.brought import HTML, JSON, Brought, foreign_pdf, two_certificates


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


def test_a_true_signature_without_a_record_is_unknown_and_alarms(
    brought: Brought, caplog: pytest.LogCaptureFixture
) -> None:
    """What a stolen key looks like: counted, logged, and nothing of it is shown."""
    rt, row = brought.web.product.rt, brought.rows[0]
    issuer = signing_keys.issuer(rt, row.organisation_id, row.mode)
    document = brought.document()
    del document["proof"]
    for vc_id in ("urn:uuid:11111111-1111-4111-8111-111111111111", row.vc_id):
        document["id"] = vc_id
        document["name"] = "Something better"
        forged = vc.sign(
            document, sign=issuer.sign, verification_method=issuer.verification_method, created=row.created_at
        )
        caplog.clear()
        told = brought.verdict(vc.stored_form(forged))
        assert told["verdict"] == "UNKNOWN"
        assert "credential" not in told
        assert "unlogged_signature" in caplog.messages


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        (credential.REVOKED, "REVOKED"),
        (credential.SUSPENDED, "SUSPENDED"),
        (credential.SUPERSEDED, "REPLACED"),
    ],
)
def test_a_copy_of_what_is_not_in_force_says_so(brought: Brought, state: str, verdict: str) -> None:
    """The same as its page, at once."""
    rows = tables.credentials
    row = brought.rows[0]
    rt = brought.web.product.rt
    with rt.database.transaction() as session:
        newer = brought.rows[1].id if state == credential.SUPERSEDED else None
        session.execute(
            update(rows).where(rows.c.id == row.id).values(
                state=state, status_changed_at=row.created_at, superseded_by=newer
            )
        )  # fmt: skip
    try:
        told = brought.verdict(brought.pdfs[0])
        page = brought.web.client.get(f"/c/{row.token}", headers=JSON).json
        html = brought.bring(brought.pdfs[0], Accept=HTML["Accept"]).get_data(as_text=True)
    finally:
        with rt.database.transaction() as session:
            session.execute(
                update(rows).where(rows.c.id == row.id).values(
                    state=credential.ISSUED, status_changed_at=None, superseded_by=None
                )
            )  # fmt: skip
    assert told["verdict"] == page["verdict"] == verdict
    assert told["sentence"] == page["sentence"]
    if state == credential.REVOKED:
        assert told["sentence"] == "Genuine, but withdrawn by the issuer on 1 Jan 2026."
    if state == credential.SUPERSEDED:
        assert told["links"]["newer"].endswith(brought.rows[1].token)
        assert f'href="/c/{brought.rows[1].token}"' in html


def test_an_older_revision_is_replaced(brought: Brought) -> None:
    """Signed again after a key was withdrawn: the older bytes are ours, and not the newest."""
    rt, row = brought.web.product.rt, brought.rows[0]
    values = {
        "credential_id": row.id, "revision": 1, "vc_sha256": row.vc_sha256, "pdf_sha256": row.pdf_sha256,
        "verification_method": row.verification_method, "created_at": row.created_at,
        "replaced_at": row.created_at,
    }  # fmt: skip
    with rt.database.transaction() as session:
        session.execute(insert(tables.revisions).values(**values))
    try:
        told = brought.verdict(brought.documents[0])
    finally:
        with rt.database.transaction() as session:
            session.execute(delete(tables.revisions))
    assert told["verdict"] == "REPLACED"
    assert told["original"].endswith(row.token)


def test_an_erased_credential_is_gone_and_its_copy_withdrawn(brought: Brought) -> None:
    """410 by the digest of the token; a copy that somebody kept is withdrawn, without a reason or a name."""
    rt, row = brought.web.product.rt, brought.rows[1]
    rows = tables.credentials
    with rt.database.transaction() as session:
        session.execute(
            insert(tables.erased_tokens).values(
                token_sha256=evidence.token_digest(row.token), erased_at=row.created_at
            )
        )
        session.execute(
            update(rows).where(rows.c.id == row.id).values(
                state=credential.ERASED, token="1" * 22, vc_id="urn:erased", recipient_name="",
                vc_sha256=None, pdf_sha256=None,
            )
        )  # fmt: skip
    try:
        paths = ("", "/base.pdf", "/certificate.pdf", "/credential.json", "/proof", "/proof.zip")
        gone = [brought.web.client.get(f"/c/{row.token}{path}", headers=JSON) for path in paths]
        told = brought.verdict(brought.pdfs[1])
        pretty = brought.verdict(json.dumps(brought.document(1), indent=1).encode())
        forged = brought.verdict(brought.documents[1].replace(b"Grace", b"Gracy"))
    finally:
        with rt.database.transaction() as session:
            session.execute(delete(tables.erased_tokens))
            session.execute(
                update(rows).where(rows.c.id == row.id).values(
                    state=credential.ISSUED, token=row.token, vc_id=row.vc_id,
                    recipient_name=row.recipient_name, vc_sha256=row.vc_sha256, pdf_sha256=row.pdf_sha256,
                )
            )  # fmt: skip
    assert [(answer.status_code, answer.json["code"]) for answer in gone] == [(410, "erased")] * len(paths)
    for one in (told, pretty):
        assert one["verdict"] == "REVOKED"
        assert "credential" not in one
        assert {"id": "status", "ok": False, "detail": "withdrawn"} in one["checks"]
    assert forged["verdict"] == "TAMPERED"


def test_nothing_that_is_brought_is_kept(brought: Brought) -> None:
    """No file, no row: what was uploaded is nowhere afterwards."""
    folder = brought.web.product.settings.data_dir
    secret = b"4711-never-kept-0815"
    changed = brought.documents[0].replace(b"Ada Lovelace", secret)
    for content in (changed, foreign_pdf(changed)):
        assert brought.verdict(content)["verdict"] == "TAMPERED"
    kept = [path for path in Path(folder).rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert kept == []
    assert verifying.by_token(brought.web.product.rt, brought.rows[0].token) is not None
