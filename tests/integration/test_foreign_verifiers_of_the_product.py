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
from conferral.store import tables
from support import require
from support.product import product_on

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
