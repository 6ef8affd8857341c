# SPDX-License-Identifier: Apache-2.0
"""One verdict, three doors: page, upload, command line; and the same answer when every peer is away."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from conferral.domain import credential
from conferral.store import tables
from support.brought import JSON, Brought, foreign_pdf, resaved, two_certificates, with_text_changed
from support.command import Shell


@pytest.fixture(scope="module")
def product_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brought]:
    """Yield the application with two certificates; Redis is away from the beginning."""
    with two_certificates(tmp_path_factory.mktemp("doors")) as made:
        yield made


@pytest.fixture
def brought(product_web: Brought, monkeypatch: pytest.MonkeyPatch) -> Brought:
    """Yield it without the limit of requests."""
    monkeypatch.setattr("conferral.web.public.answers.limit", lambda: None)
    return product_web


def told(wire: dict[str, Any]) -> list[Any]:
    """Return what must be the same at all doors; the clock of the command is the real one."""
    checks = [(check["id"], check["ok"], check["detail"]) for check in wire["checks"]]
    return [wire["verdict"], wire["sentence"], checks]


STATES = (credential.ISSUED, credential.REVOKED, credential.SUSPENDED, credential.SUPERSEDED)


@pytest.mark.parametrize("state", STATES)
def test_page_upload_and_command_say_the_same_of_an_original(
    brought: Brought, tmp_path: Path, state: str
) -> None:
    """Verdict, sentence and every check, for every standing."""
    row, rows = brought.rows[0], tables.credentials
    rt = brought.web.product.rt
    changed = row.created_at if state != credential.ISSUED else None
    with rt.database.transaction() as session:
        session.execute(
            update(rows).where(rows.c.id == row.id).values(state=state, status_changed_at=changed)
        )
    try:
        page = brought.web.client.get(f"/c/{row.token}", headers=JSON).json
        upload = brought.verdict(brought.documents[0], "credential.json")
        by_pdf = brought.verdict(brought.pdfs[0])
        command = by_command(brought, tmp_path, brought.documents[0], "credential.json")
        pdf_command = by_command(brought, tmp_path, brought.pdfs[0], "certificate.pdf")
    finally:
        with rt.database.transaction() as session:
            session.execute(
                update(rows).where(rows.c.id == row.id).values(
                    state=credential.ISSUED, status_changed_at=None
                )
            )  # fmt: skip
    assert page is not None
    assert told(page) == told(upload) == told(command)
    assert told(by_pdf) == told(pdf_command)
    assert [check[0] for check in told(by_pdf)[2]][1] == "pdf_digest"


@pytest.mark.parametrize("name", ["text", "resaved", "foreign", "json", "nothing", "empty"])
def test_upload_and_command_say_the_same_of_anything_else(
    brought: Brought, tmp_path: Path, name: str
) -> None:
    """Altered, re-saved, put into another PDF, forged, no credential at all."""
    content = {
        "text": with_text_changed(brought.pdfs[0]),
        "resaved": resaved(brought.pdfs[0]),
        "foreign": foreign_pdf(brought.documents[0]),
        "json": brought.documents[0].replace(b"Ada Lovelace", b"Eve Lovelace"),
        "nothing": b'{"hello": "world"}',
        "empty": b"",
    }[name]
    assert told(brought.verdict(content)) == told(by_command(brought, tmp_path, content, "file"))


def by_command(brought: Brought, folder: Path, content: bytes, name: str) -> dict[str, Any]:
    """Return what `conferral verify FILE --json` says at the product's time."""
    path = folder / name
    path.write_bytes(content)
    shell = Shell(brought.web.product.settings.data_dir, {"XDG_CONFIG_HOME": str(folder)})
    as_of = brought.web.product.time().isoformat()
    done = shell.run("verify", path, "--json", "--as-of", as_of)
    assert "Traceback" not in done.err
    return dict(json.loads(done.out))


def test_verifying_asks_no_peer(brought: Brought, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Redis, the mail relay and every other host away the answer is the same: no socket is opened."""
    row = brought.rows[0]
    before = brought.web.client.get(f"/c/{row.token}", headers=JSON).json
    opened: list[object] = []

    def refuse(_self: socket.socket, address: object) -> None:
        opened.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    after = brought.web.client.get(f"/c/{row.token}", headers=JSON).json
    upload = brought.verdict(brought.pdfs[0])
    bundle = brought.web.client.get(f"/c/{row.token}/proof.zip")
    assert opened == []
    assert before is not None
    assert after is not None
    assert told(before) == told(after)
    assert upload["verdict"] == "VALID"
    assert bundle.status_code == 200
