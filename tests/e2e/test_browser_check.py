# SPDX-License-Identifier: Apache-2.0
"""The check that a reader's own browser does, and `/verify`, in a real browser; in JavaScript alone, too."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conferral.domain import data_integrity, vc
from support import require, sample_credentials
from support.product import product_on
from support.web import ISSUE, body, free_port, gunicorn, web_of

FOLDER = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DOCUMENTS = 200
WORDS = ["Ada", "é", "😀", "ع", '"', "\\", "\n", "\t", "_:c14n0", "<x>", "\u200f", "ﬀ", "\U0001d49c"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Let Chromium look at a certificate's page and bring files to /verify."""
    require.program("node", "apt-get install nodejs")
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        chromium = require.program("chromium", "apt-get install chromium")
    if not (FOLDER / "node_modules").is_dir():
        require.missing("the browser's driver is not installed", "npm ci --prefix tests/e2e")
    folder = tmp_path_factory.mktemp("own")
    port = free_port()
    variables = {
        "CONFERRAL_REDIS_URL": "redis://127.0.0.1:1/0",
        "CONFERRAL_HTTP_PORT": str(port),
        "CONFERRAL_PUBLIC_URL": f"http://localhost:{port}",
    }
    with product_on("sqlite", folder, **variables) as product:
        web = web_of(product)
        rows = []
        for name in ("Ada Lovelace", "Grace Hopper"):
            made = web.post(ISSUE, body(recipient={"name": name, "email": "x@example.com"}, external_id=name))
            product.run()
            rows.append(product.credential(made.json["credential_id"]))
        pdf = product.rt.blobs.get(rows[0].pdf_sha256)
        (folder / "credential.json").write_bytes(product.rt.blobs.get(rows[0].vc_sha256))
    place = pdf.index(b"stream\n") + 100
    (folder / "certificate.pdf").write_bytes(pdf)
    (folder / "changed.pdf").write_bytes(pdf[:place] + bytes([pdf[place] ^ 1]) + pdf[place + 1 :])
    (folder / "nothing.json").write_bytes(b'{"hello": "world"}')
    names = {"valid": "certificate.pdf", "tampered": "changed.pdf", "unknown": "nothing.json"}
    out = os.environ.get("CONFERRAL_TEST_SCREENSHOTS")
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
    job = {
        "base": f"http://localhost:{port}",
        "chromium": chromium,
        "out": out,
        "page": f"/c/{rows[0].token}",
        "files": {name: str(folder / file) for name, file in names.items()},
        "json": str(folder / "credential.json"),
    }
    with gunicorn(folder / "data", **variables):
        done = subprocess.run(
            ["node", "own_check.mjs"],
            input=json.dumps(job), capture_output=True, text=True, cwd=FOLDER, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_browser_comes_to_the_verdict_by_itself(report: dict[str, Any]) -> None:
    """Signature, pages and log: yes, in light, dark and on a narrow screen, under the page's own policy."""
    for view in ("light", "dark", "narrow"):
        told = report["checks"][view]
        assert [check[:2] for check in told["checks"]] == [
            ["good", "The signature: yes"],
            ["good", "The pages of the PDF: yes"],
            ["good", "The public log: yes"],
        ], told
        assert told["status"].startswith("Checked by your own browser")


@pytest.mark.parametrize(("change", "wrong"), [("forged", 0), ("repainted", 1), ("otherleaf", 2)])
def test_the_browser_says_no_when_something_was_changed(
    report: dict[str, Any], change: str, wrong: int
) -> None:
    """A changed name, changed pages, the proof of another leaf; a forged file is also not in the log."""
    told = report["checks"][change]
    assert told["checks"][wrong][0] == "bad"
    assert told["status"].startswith("Your browser does not come to the verdict")


def test_a_browser_that_cannot_check_says_so(report: dict[str, Any]) -> None:
    """Without Ed25519 the pages are still compared; without any cryptography nothing is claimed."""
    told = report["checks"]["old"]
    assert [check[0] for check in told["checks"]] == ["calm", "good", "calm"]
    assert told["status"].startswith("Your browser could not check everything")
    assert report["checks"]["insecure"]["checks"] == []
    assert "nothing was checked here" in report["checks"]["insecure"]["status"]


def test_files_are_brought_by_form_and_by_dropping(report: dict[str, Any]) -> None:
    """Valid, tampered with, unknown; a dropped file is sent at once."""
    wanted = {"valid": "Valid", "tampered": "Tampered with", "unknown": "Unknown"}
    for view in ("light", "dark", "narrow"):
        assert {name: report["verdicts"][f"{name}.{view}"] for name in wanted} == wanted
    assert report["verdicts"]["dropped"] == "Valid"


def test_these_pages_are_for_everybody(report: dict[str, Any]) -> None:
    """No broken rule of WCAG 2.2 AA that a machine can find, no sideways scrolling, no refused resource."""
    assert report["faults"] == []
    assert report["said"] == []


def test_the_browser_hashes_what_was_signed_on_random_documents() -> None:
    """200 documents with hostile text and every optional field: the script's hash is the library's."""
    require.program("node", "apt-get install nodejs")
    source = random.Random(8)
    issuer = sample_credentials.web_issuer()

    def text() -> str:
        return "x" + "".join(source.choice(WORDS) for _ in range(source.randrange(6)))

    documents = [
        sample_credentials.credential(
            issuer,
            recipient_name=text(),
            issuer_name=text(),
            achievement_name=text(),
            achievement_description=text(),
            achievement_criteria=text(),
            valid_until=source.choice([None, vc.last_moment(vc.date(2099, 1, 1))]),
            issuer_url=source.choice([None, "https://acme.example/ü"]),
            subject_id=source.choice([None, "did:key:zSomebody"]),
        )
        for _ in range(DOCUMENTS)
    ]
    done = subprocess.run(
        ["node", "statements.mjs"],
        input="\n".join(map(json.dumps, documents)), capture_output=True, text=True, cwd=FOLDER, check=True,
    )  # fmt: skip
    hashes = []
    for document in documents:
        proof = document.pop("proof")
        options = {name: value for name, value in proof.items() if name != "proofValue"}
        hashes.append(
            data_integrity.hash_to_sign(document, {**options, "@context": document["@context"]}).hex()
        )
    assert done.stdout.split("\n")[:-1] == hashes
    sys.stdout.write(f"\n{len(hashes)} hashes equal\n")
