# SPDX-License-Identifier: Apache-2.0
"""`conferral verify` on what was really issued, on what somebody changed, and without any database."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pikepdf
import pytest

from conferral.adapters import pdf_reader_child
from conferral.adapters.brought_file import Material
from conferral.domain import canonical, vc
from conferral.domain.offline_check import Brought
from conferral.domain.pdf_binding import check_pdf
from conferral.domain.verification import Verdict
from conferral.services import anchoring, signing_keys, verifying, verifying_uploads
from conferral.store.tables import status_lists as lists
from support.command import Shell
from support.product import Product, product_on
from support.sample_credentials import credential, web_issuer


@dataclass(frozen=True)
class Issued:
    """One credential that was issued, as files."""

    product: Product
    shell: Shell
    folder: Path
    credential_id: str
    token: str
    pdf: bytes
    json: bytes

    def verify(self, content: bytes, name: str, *words: str | Path) -> tuple[int, str]:
        """Return exit code and output for a file."""
        path = self.folder / name
        path.write_bytes(content)
        done = self.shell.run("verify", path, *words)
        assert "Traceback" not in done.err
        return done.code, done.out


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issued]:
    """Yield a credential of a test organisation."""
    folder = tmp_path_factory.mktemp("issued")
    with product_on("sqlite", folder) as product:
        accepted = product.request()
        product.run()
        row = product.credential(accepted.credential_id)
        pdf, stored = (
            verifying.final_pdf(product.rt, row.token),
            verifying.stored_credential(product.rt, row.token),
        )
        assert pdf is not None
        assert stored is not None
        # The product's clock stands in the past; the command judges by the real one.
        shell = Shell(product.settings.data_dir, {"XDG_CONFIG_HOME": str(folder / "config")})
        yield Issued(product, shell, folder, row.id, row.token, pdf, stored)


def test_the_original_is_valid_as_pdf_as_json_by_id_by_token_and_by_address(issued: Issued) -> None:
    """Whatever a person has in hand, the verdict is the same."""
    code, out = issued.verify(issued.pdf, "certificate.pdf")
    assert code == 0, out
    assert out.startswith("VALID  This certificate is genuine and in force.\n  Ada Lovelace · ")
    assert "✓ Content unchanged" in out
    assert issued.verify(issued.json, "credential.json")[0] == 0
    pretty = json.dumps(json.loads(issued.json), indent=2, ensure_ascii=False).encode()
    assert issued.verify(pretty, "pretty.json")[0] == 0
    page = issued.product.rt.url(f"/c/{issued.token}")
    for what in (issued.credential_id, issued.token, page):
        assert issued.shell.run("verify", what).code == 0


def test_a_changed_name_is_tampered(issued: Issued) -> None:
    """In the JSON and in the attachment of the PDF."""
    for content, name in ((issued.json, "changed.json"), (issued.pdf, "changed.pdf")):
        changed = content.replace(b"Ada Lovelace", b"Eve Lovelace")
        assert changed != content
        code, out = issued.verify(changed, name)
        assert (code, out.split("  ")[0]) == (12, "TAMPERED")


def test_a_pdf_that_was_saved_again_or_extended_is_tampered_and_says_what_is_genuine(issued: Issued) -> None:
    """A right beginning proves nothing: a later update could repaint the page."""
    again = io.BytesIO()
    with pikepdf.open(io.BytesIO(issued.pdf)) as opened:
        opened.save(again)
    for content, name in ((again.getvalue(), "again.pdf"), (issued.pdf + b"\n% x\n%%EOF\n", "longer.pdf")):
        code, out = issued.verify(content, name)
        assert code == 12
        assert "The credential inside is genuine, this file is not the one issued." in out


def test_no_single_flipped_bit_is_ever_valid(issued: Issued) -> None:
    """Pages, attachment, tables: every part of the file is covered."""
    step = max(1, len(issued.pdf) // 150)
    for position in range(0, len(issued.pdf), step):
        flipped = bytearray(issued.pdf)
        flipped[position] ^= 1 << position % 8
        assert _verdict(issued, bytes(flipped)) is Verdict.TAMPERED, position


def _verdict(issued: Issued, content: bytes) -> Verdict:
    """Judge as the command does, with the child's parser in this process."""
    try:
        attached = pdf_reader_child.read(content) or b""
        digest = check_pdf(content, attached, canonical.read_document(attached))
        material = Material(content, Brought(attached, digest), content)
    except (pdf_reader_child.Unreadable, canonical.UnsafeDocument):
        material = Material(content, None, content)
    verified = verifying_uploads.judged(issued.product.rt, material)
    assert verified is not None
    return verified.judgement.verdict


def test_a_credential_of_ours_that_nobody_recorded_is_unknown_and_alarms(issued: Issued) -> None:
    """A true signature without a record is what a stolen key looks like."""
    row = issued.product.credential(issued.credential_id)
    issuer = signing_keys.issuer(issued.product.rt, row.organisation_id, "test")
    document = json.loads(issued.json)
    del document["proof"]
    document["id"] = "urn:uuid:11111111-1111-4111-8111-111111111111"

    forged = vc.sign(
        document,
        sign=issuer.sign,
        verification_method=issuer.verification_method,
        created=row.created_at,
    )
    path = issued.folder / "forged.json"
    path.write_bytes(vc.stored_form(forged))
    done = issued.shell.run("verify", path)
    assert done.code == 13
    assert "ALERT" in done.err


def test_a_date_may_be_named_and_is_said(issued: Issued) -> None:
    """--as-of judges then, not now."""
    done = issued.shell.run("verify", issued.credential_id, "--as-of", "2001-01-01", "--json")
    assert done.code == 16
    assert done.records[0]["verdict"] == "NOT_YET_VALID"
    assert done.records[0]["as_of"] == "2001-01-01T00:00:00Z"
    assert issued.shell.run("verify", issued.token, "--as-of", "soon").code == 2


def test_what_is_not_there_is_unknown_or_not_found(issued: Issued) -> None:
    """An unknown id is a verdict; a missing file is a mistake."""
    assert issued.shell.run("verify", "cred_00000000000000000000000000").code == 13
    assert issued.shell.run("verify", "1111111111111111111111").code == 13
    assert issued.verify(b"hello", "hello.txt")[0] == 13
    assert issued.shell.run("verify", issued.folder / "nothing.pdf").code == 5


def test_offline_nobody_is_trusted_until_pinned_and_silence_is_never_valid(issued: Issued) -> None:
    """The signature holds, issuer and status cannot be told: CANNOT CHECK."""
    code, out = issued.verify(issued.pdf, "offline.pdf", "--offline")
    assert code == 14
    assert "✓ Signature" in out
    assert "? Issuer not known here" in out
    assert "? Status not known" in out
    changed = issued.pdf.replace(b"Ada Lovelace", b"Eve Lovelace")
    assert issued.verify(changed, "offline-changed.pdf", "--offline")[0] == 12


def test_offline_a_bundle_is_valid_when_issuer_and_log_are_pinned(issued: Issued) -> None:
    """Everything is checked by files alone; without the status list it is not valid."""
    rt, row = issued.product.rt, issued.product.credential(issued.credential_id)
    keys = signing_keys.published(rt, row.organisation_id, "test")
    (method,) = keys
    did = method.partition("#")[0]
    document = {
        "id": did,
        "verificationMethod": [
            {
                "id": method,
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": did.removeprefix("did:key:"),
            }
        ],
        "assertionMethod": [method],
    }
    pinned, vkey = issued.folder / "did.json", issued.folder / "log.vkey"
    pinned.write_text(json.dumps(document))
    with rt.database.snapshot() as session:
        vkey.write_text(f"{anchoring.verifier_key(session, 'test')}\n")
        proof = anchoring.proof_of(session, row.id)
    listed = _status_list(issued, row.status_list_number)
    members = {"credential.json": issued.json, "certificate.pdf": issued.pdf}
    members |= {"status.json": listed, "credential.tlog-proof": str(proof).encode()}
    pins = ("--offline", "--did", pinned, "--vkey", vkey, "--as-of", row.created_at.isoformat())
    code, out = issued.verify(_zipped(members), "proof.zip", *pins)
    assert code == 0, out
    assert "✓ Logged" in out
    del members["status.json"]
    assert issued.verify(_zipped(members), "without.zip", *pins)[0] == 14
    trust = issued.folder / "config" / "conferral" / "trust.json"
    trust.parent.mkdir(parents=True)
    trust.write_text(json.dumps({"issuers": [document]}))
    try:
        out = issued.verify(issued.json, "trusted.json", "--offline")[1]
    finally:
        trust.unlink()
    assert "✓ Issuer" in out


def _status_list(issued: Issued, number: int) -> bytes:
    found = [row for row in issued.product.rows(lists) if row.number == number]
    assert found[0].signed is not None
    return bytes(found[0].signed)


def _zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_a_foreign_credential_cannot_be_checked_until_its_issuer_is_pinned(issued: Issued) -> None:
    """A did:web is not resolved: without its document there is no key, and nothing else is shown."""
    issuer = web_issuer()
    content = json.dumps(credential(issuer)).encode()
    code, out = issued.verify(content, "foreign.json")
    assert code == 14
    assert "Issuer" not in out
    pinned = issued.folder / "foreign-did.json"
    pinned.write_text(json.dumps(issuer.document))
    code, out = issued.verify(content, "foreign.json", "--did", pinned)
    assert code == 14
    assert "✓ Issuer" in out
    assert "? Status not known" in out


def test_another_installations_page_is_judged_by_its_credential_and_by_pins(issued: Issued) -> None:
    """What a page says of itself counts nothing: the signed credential behind it is fetched."""
    issuer = web_issuer()
    content = json.dumps(credential(issuer)).encode()
    asked: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = f"http://127.0.0.1:{server.server_address[1]}/c/1111111111111111111112?format=json"
        done = issued.shell.run("verify", page, "--json")
        server.shutdown()
        thread.join()
    assert asked == ["/c/1111111111111111111112/credential.json"]
    assert (done.code, done.records[0]["verdict"]) == (14, "CANNOT_CHECK")
    assert issued.shell.run("verify", page).code == 8


def test_verifying_needs_no_installation_and_makes_none(issued: Issued, tmp_path: Path) -> None:
    """An employer's machine has no database, and still has none afterwards."""
    path = tmp_path / "certificate.pdf"
    path.write_bytes(issued.pdf)
    done = Shell(tmp_path / "nowhere", {"XDG_CONFIG_HOME": str(tmp_path)}).run("verify", path, "--json")
    assert done.code == 14
    assert done.records[0]["verdict"] == "CANNOT_CHECK"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [(("--did", "missing.json"), 5), (("--vkey", "missing.vkey"), 5), (("--did", "{}"), 3)],
)
def test_a_pin_that_cannot_be_read_is_an_error_and_never_ignored(
    issued: Issued, tmp_path: Path, words: tuple[str, str], code: int
) -> None:
    """Whoever pins wants to be protected by it."""
    option, value = words
    file = tmp_path / "pin"
    if value == "{}":
        file.write_text('{"id": 1, "verificationMethod": 2}')
    assert issued.shell.run("verify", issued.token, option, file).code == code
