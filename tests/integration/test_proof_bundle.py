# SPDX-License-Identifier: Apache-2.0
"""The proof bundle of the real product: what lies in it, and what it shows to somebody who has only that."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pikepdf
import pytest

from conferral.domain.pdf_attachment import attach
from conferral.domain.vc import timestamp
from support import isolated
from support.command import Shell
from support.product import product_on
from support.web import ISSUE, Web, body, web_of

MEMBERS = [
    "README.txt", "certificate.pdf", "contexts/credentials-v2.jsonld", "contexts/open-badges-3.0.3.jsonld",
    "credential.json", "credential.tlog-proof", "did.json", "log.vkey", "status.json", "verify.py",
]  # fmt: skip


@dataclass
class Bundled:
    """An issued credential and its bundle, unpacked."""

    web: Web
    row: Any
    content: bytes
    folder: Path

    @property
    def pins(self) -> list[str | Path]:
        """Trust what lies in the bundle, as somebody does who compared it."""
        as_of = timestamp(self.web.product.time() + timedelta(hours=1))
        return [
            "--did",
            self.folder / "did.json",
            "--vkey",
            self.folder / "log.vkey",
            "--as-of",
            as_of,
        ]


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundled]:
    """Issue one credential and unpack its bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    with product_on("sqlite", folder, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        web = web_of(product)
        made = web.post(ISSUE, body()).json
        product.run()
        row = product.credential(made["credential_id"])
        answer = web.client.get(f"/c/{row.token}/proof.zip")
        assert (answer.status_code, answer.mimetype) == (200, "application/zip")
        unpacked = folder / "unpacked"
        with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
            archive.extractall(unpacked)
        yield Bundled(web, row, answer.data, unpacked)


def test_the_bundle_holds_everything_and_is_the_same_every_time(bundled: Bundled) -> None:
    """By its page, and by the API; equal bytes, no date, no compression."""
    with zipfile.ZipFile(io.BytesIO(bundled.content)) as archive:
        assert archive.namelist() == MEMBERS
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    again = bundled.web.client.get(f"/c/{bundled.row.token}/proof.zip")
    by_key = bundled.web.get(f"/v1/credentials/{bundled.row.id}/proof.zip", "credentials:read")
    assert again.data == by_key.data == bundled.content
    readme = (bundled.folder / "README.txt").read_text("utf-8")
    assert bundled.row.vc_id in readme
    assert (bundled.folder / "log.vkey").read_text("utf-8").strip() in readme


def test_before_it_is_in_a_checkpoint_there_is_no_bundle(bundled: Bundled) -> None:
    """404 for strangers, who must not know of it; 503 with Retry-After for its organisation."""
    web = bundled.web
    made = web.post(ISSUE, body(external_id="waiting")).json
    row = web.product.credential(made["credential_id"])
    assert web.client.get(f"/c/{row.token}/proof.zip").status_code == 404
    web.product.run_only("tasks.issuance.issue_credential")
    early = web.get(f"/v1/credentials/{row.id}/proof.zip", "credentials:read")
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")
    web.product.run()
    assert web.get(f"/v1/credentials/{row.id}/proof.zip", "credentials:read").status_code == 200


def test_a_stranger_with_only_the_bundle_and_one_library_says_valid(bundled: Bundled, tmp_path: Path) -> None:
    """The folder, the zip, the PDF; isolated, with every other import and the network blocked."""
    told = isolated.run(tmp_path, bundled.folder, *bundled.pins)
    assert told["verdict"] == "VALID", told
    assert all(check["ok"] for check in told["checks"])
    assert [check["id"] for check in told["checks"]] == [
        "signature", "pdf_digest", "issuer", "status", "validity", "anchor",
    ]  # fmt: skip
    archive = tmp_path / "proof.zip"
    archive.write_bytes(bundled.content)
    assert isolated.run(tmp_path, archive, *bundled.pins)["verdict"] == "VALID"
    unpinned = isolated.run(tmp_path, bundled.folder, *bundled.pins[4:])
    assert unpinned["verdict"] == "CANNOT_CHECK"
    assert unpinned["checks"][0]["ok"] is True
    alone = isolated.run(tmp_path, bundled.folder / "certificate.pdf", *bundled.pins)
    assert [check["ok"] for check in alone["checks"]] == [True, True, True, None, True, None]


def test_the_program_in_the_bundle_is_the_one_that_runs(bundled: Bundled, tmp_path: Path) -> None:
    """What a stranger unpacks is what was tested."""
    isolated.run(tmp_path, bundled.folder, *bundled.pins)
    assert (bundled.folder / "verify.py").read_bytes() == (tmp_path / "verify.py").read_bytes()


def changed_files(bundled: Bundled) -> dict[str, bytes]:
    """Return certificates that are not the one issued."""
    pdf = (bundled.folder / "certificate.pdf").read_bytes()
    stored = (bundled.folder / "credential.json").read_bytes()
    again = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf)) as opened:
        opened.save(again)
    length = bundled.row.base_length
    place = pdf.index(b"stream\n") + 100
    forged = stored.replace(b"Ada Lovelace", b"Eve Lovelace")
    return {
        "text": pdf[:place] + bytes([pdf[place] ^ 1]) + pdf[place + 1 :],
        "extended": pdf + b"\n% x\n%%EOF\n",
        "resaved": again.getvalue(),
        "name": pdf.replace(b"Ada Lovelace", b"Eve Lovelace"),
        "forged": attach(pdf[:length], forged, bundled.row.created_at),
        "json": forged,
    }


@pytest.mark.parametrize("name", ["text", "extended", "resaved", "name", "forged", "json"])
def test_a_changed_file_is_tampered_for_the_program_and_for_our_command(
    bundled: Bundled, tmp_path: Path, name: str
) -> None:
    """One verdict, whoever is asked."""
    path = tmp_path / f"changed.{'json' if name == 'json' else 'pdf'}"
    path.write_bytes(changed_files(bundled)[name])
    program = isolated.run(tmp_path, path, *bundled.pins)
    shell = Shell(bundled.web.product.settings.data_dir, {"XDG_CONFIG_HOME": str(tmp_path)})
    command = shell.run("verify", path, "--offline", "--json", *bundled.pins)
    told = json.loads(command.out)
    assert program["verdict"] == told["verdict"] == "TAMPERED"
    assert [check["ok"] for check in program["checks"]] == [check["ok"] for check in told["checks"]]


def test_our_own_command_says_the_same_of_the_bundle(bundled: Bundled, tmp_path: Path) -> None:
    """`conferral verify proof.zip --offline` with the same pins, check by check."""
    archive = tmp_path / "proof.zip"
    archive.write_bytes(bundled.content)
    shell = Shell(bundled.web.product.settings.data_dir, {"XDG_CONFIG_HOME": str(tmp_path)})
    done = shell.run("verify", archive, "--offline", "--json", *bundled.pins)
    assert done.code == 0, done.out + done.err
    told, program = json.loads(done.out), isolated.run(tmp_path, archive, *bundled.pins)
    assert [(check["id"], check["ok"]) for check in told["checks"]] == [
        (check["id"], check["ok"]) for check in program["checks"]
    ]
    assert program["verdict"] == told["verdict"] == "VALID"
