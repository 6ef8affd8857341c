# SPDX-License-Identifier: Apache-2.0
"""A foreign eye on changed keys: strangers resolve did:web from a local map and judge by what it lists."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conferral.domain import canonical, vc
from conferral.services import signing_keys
from conferral.store import tables
from support import require
from support.issuer_keys import HOST, K1, K2, PATIENCE, issue, named_product_on, rotate, withdraw
from support.product import DATABASES, Product

FOREIGN = Path(__file__).parents[1] / "foreign"
SCHEMA = "ob_v3p0_achievementcredential_schema.json"
SCHEMA_URL = f"https://purl.imsglobal.org/spec/ob/v3p0/schema/json/{SCHEMA}"
DID_URL = f"{HOST}/issuers/demo/did.json"
SECONDS = 120


@dataclass
class Strangers:
    """Credentials to show, each with the documents that could be fetched when it was shown."""

    product: Product
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)

    def show(self, name: str, stored: bytes) -> None:
        """Keep a credential with the DID document and the status list as they are served now."""
        credential = json.loads(stored)
        listed = credential["credentialStatus"]["statusListCredential"]
        number = int(listed.rpartition("/")[2])
        (served,) = self.product.rows(tables.status_lists, tables.status_lists.c.number == number)
        documents = {
            DID_URL: signing_keys.did_document(self.product.rt, "demo"),
            listed: json.loads(served.signed),
            SCHEMA_URL: json.loads((require.test_data() / SCHEMA).read_text()),
        }
        self.cases[name] = {"name": name, "credential": credential, "documents": documents}

    def answers(self) -> dict[str, dict[str, Any]]:
        """Return what the foreign verifiers say, by name."""
        node = require.program("node", "apt-get install nodejs")
        if not (FOREIGN / "node_modules").is_dir():
            npm = require.program("npm", "apt-get install npm")
            subprocess.run([npm, "ci"], cwd=FOREIGN, check=True, capture_output=True, timeout=SECONDS)
        question = {"contexts": dict(canonical.CONTEXTS), "cases": list(self.cases.values())}
        done = subprocess.run(
            [node, "verify.mjs"], cwd=FOREIGN, input=json.dumps(question), capture_output=True, text=True,
            timeout=SECONDS, check=True,
        )  # fmt: skip
        return {found["name"]: found for found in json.loads(done.stdout)["cases"]}


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database, reached under a real host name, at today's date."""
    with named_product_on(request.param, tmp_path) as built:
        built.time.move_to(datetime.now(UTC))
        yield built


def accept(answer: dict[str, Any]) -> bool:
    """Return whether both verifiers accept the credential, its list and its schema."""
    core, bazaar = answer["core"], answer["bazaar"]
    return (
        core["errors"] in ([], None)
        and core["log"]["valid_signature"] is True
        and core["log"]["revocation_status"] is True
        and core["schema"] is True
        and (bazaar["verified"], bazaar["status"]) == (True, [False])
    )


def refuse(answer: dict[str, Any]) -> bool:
    """Return whether both verifiers refuse the signature."""
    return answer["core"]["log"].get("valid_signature") is not True and answer["bazaar"]["verified"] is False


def test_strangers_accept_both_keys_when_the_key_was_rotated(product: Product) -> None:
    """A credential of the old key and one of the new key verify by the same DID document."""
    (old,) = issue(product)
    rotate(product)
    (new,) = issue(product)
    strangers = Strangers(product)
    for name, row in (("old", old), ("new", new)):
        strangers.show(name, product.rt.blobs.get(row.vc_sha256))
    answers = strangers.answers()
    methods = [strangers.cases[name]["credential"]["proof"]["verificationMethod"] for name in ("old", "new")]
    assert methods == [K1, K2]
    assert (accept(answers["old"]), accept(answers["new"])) == (True, True), answers
    allowed = {DID_URL, SCHEMA_URL, *(url for case in strangers.cases.values() for url in case["documents"])}
    assert {url for answer in answers.values() for url in answer["asked"]} - allowed == set()


def test_strangers_refuse_the_stolen_key_when_it_was_withdrawn(product: Product) -> None:
    """Accepted before; afterwards the first revision and a forgery are refused, the second is accepted."""
    (row,) = issue(product)
    strangers = Strangers(product)
    before = product.rt.blobs.get(row.vc_sha256)
    strangers.show("before", before)
    answers = strangers.answers()
    stolen = signing_keys.issuer(product.rt, product.caller.organisation_id, "live")
    withdraw(product)
    product.run(patience_seconds=PATIENCE)
    after = product.rt.blobs.get(product.credential(row.id).vc_sha256)
    # A stranger of another day: verifiers keep a DID document for a while.
    strangers = Strangers(product)
    strangers.show("first revision", before)
    strangers.show("second revision", after)
    strangers.show("forged", _forged(after, stolen))
    answers |= strangers.answers()
    assert accept(answers["before"]), answers["before"]
    assert accept(answers["second revision"]), answers["second revision"]
    assert refuse(answers["first revision"]), answers["first revision"]
    assert refuse(answers["forged"]), answers["forged"]
    assert {case["credential"]["id"] for case in strangers.cases.values()} == {row.vc_id}


def _forged(stored: bytes, stolen: signing_keys.Issuer) -> bytes:
    """Return what a thief makes of a credential: another name, signed by the stolen key."""
    document = json.loads(stored)
    del document["proof"]
    document["credentialSubject"]["identifier"][1]["identityHash"] = "Mallory"
    created = datetime.now(UTC)
    signed = vc.sign(
        document, sign=stolen.sign, verification_method=stolen.verification_method, created=created
    )
    return vc.stored_form(signed)
