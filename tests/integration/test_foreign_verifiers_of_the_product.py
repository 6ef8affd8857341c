# SPDX-License-Identifier: Apache-2.0
"""A foreign eye on what the whole product issued: the stored bytes, the served status list."""

from __future__ import annotations

import copy
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conferral.domain import canonical
from conferral.domain.status_change import REINSTATE, REVOKE, SUSPEND
from conferral.store import tables
from support import require
from support.product import Product, product_on
from support.statuses import SUSPENDABLE, change, correct, issued, suspendable_template

FOREIGN = Path(__file__).parents[1] / "foreign"
SCHEMA = "ob_v3p0_achievementcredential_schema.json"
SCHEMA_URL = f"https://purl.imsglobal.org/spec/ob/v3p0/schema/json/{SCHEMA}"
SECONDS = 120


def test_foreign_verifiers_accept_the_issued_credential_and_refuse_a_changed_one(tmp_path: Path) -> None:
    """Both say yes to the stored bytes with the list we serve, and no when one name is another."""
    with product_on("sqlite", tmp_path) as product:
        product.time.move_to(datetime.now(UTC))
        accepted = product.request()
        product.run()
        row = product.credential(accepted.credential_id)
        issued = json.loads(product.rt.blobs.get(row.vc_sha256))
        (served,) = product.rows(tables.status_lists, tables.status_lists.c.number == row.status_list_number)
    changed = copy.deepcopy(issued)
    changed["credentialSubject"]["identifier"][1]["identityHash"] = "Eve"
    documents = {
        issued["credentialStatus"]["statusListCredential"]: json.loads(served.signed),
        SCHEMA_URL: json.loads((require.test_data() / SCHEMA).read_text()),
    }
    good, bad = _asked({"issued": issued, "changed": changed}, documents)
    assert good["core"]["errors"] in ([], None)
    assert good["core"]["log"]["valid_signature"] is True
    assert good["core"]["log"]["revocation_status"] is True
    assert good["core"]["schema"]
    assert (good["bazaar"]["verified"], good["bazaar"]["status"]) == (True, [False])
    assert bad["core"]["log"].get("valid_signature") is not True
    assert bad["bazaar"]["verified"] is False


def test_foreign_verifiers_see_every_change_of_a_standing(tmp_path: Path) -> None:
    """Revoked, suspended and superseded ones are refused by both; reinstated and corrected ones accepted."""
    with product_on("sqlite", tmp_path) as product:
        product.time.move_to(datetime.now(UTC))
        suspendable_template(product)
        plain = {name: issued(product) for name in ("revoked", "superseded")}
        pausable = {
            name: issued(product, template=SUSPENDABLE)
            for name in ("suspended", "reinstated", "revoked after all")
        }
        change(product, REVOKE, plain["revoked"])
        corrected = correct(product, plain["superseded"], recipient_name="Ada King")
        for credential_id in pausable.values():
            change(product, SUSPEND, credential_id)
        change(product, REINSTATE, pausable["reinstated"])
        change(product, REVOKE, pausable["revoked after all"])
        product.run(patience_seconds=5)
        ids = {**plain, **pausable, "corrected": corrected.credential_id}
        documents = _served(product)
        files = {name: product.credential(one).vc_sha256 for name, one in ids.items()}
        credentials = {name: json.loads(product.rt.blobs.get(digest)) for name, digest in files.items()}
    for name, found in zip(credentials, _asked(credentials, documents), strict=True):
        is_in_force = name in ("reinstated", "corrected")
        purpose = credentials[name]["credentialStatus"]["statusPurpose"]
        assert purpose == ("suspension" if name in pausable else "revocation")
        assert found["core"]["log"]["valid_signature"] is True, name
        assert (found["core"]["log"].get(f"{purpose}_status") is True) is is_in_force, (name, found["core"])
        assert (found["bazaar"]["verified"], found["bazaar"]["status"]) == (True, [not is_in_force]), name


def _served(product: Product) -> dict[str, Any]:
    """Return what the installation serves to a stranger, by address."""
    lists = product.rows(tables.status_lists, tables.status_lists.c.signed.is_not(None))
    found = {product.rt.url(f"/status/{row.number}"): json.loads(row.signed) for row in lists}
    return found | {SCHEMA_URL: json.loads((require.test_data() / SCHEMA).read_text())}


def _asked(credentials: dict[str, Any], documents: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the foreign verifiers say of each credential."""
    node = require.program("node", "apt-get install nodejs")
    if not (FOREIGN / "node_modules").is_dir():
        npm = require.program("npm", "apt-get install npm")
        subprocess.run([npm, "ci"], cwd=FOREIGN, check=True, capture_output=True, timeout=SECONDS)
    cases = [
        {"name": name, "credential": document, "documents": documents}
        for name, document in credentials.items()
    ]
    done = subprocess.run(
        [node, "verify.mjs"],
        cwd=FOREIGN,
        input=json.dumps({"contexts": dict(canonical.CONTEXTS), "cases": cases}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)["cases"]
    return found
