# SPDX-License-Identifier: Apache-2.0
"""The proof bundle: everything somebody needs to check a credential when this installation is gone.

Made on demand from what is stored and published already; the same state gives the same bytes. What lies in
it proves only itself: whose keys they are, the reader has to know from elsewhere.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Final

from conferral import standalone
from conferral.adapters import proof_bundle
from conferral.domain import canonical, did
from conferral.services import anchoring
from conferral.services.runtime import Runtime
from conferral.store.queries import issuers, status_lists
from conferral.store.records import Record

_CONTEXT_FILES: Final = ("credentials-v2.jsonld", "open-badges-3.0.3.jsonld")
_README: Final = """\
Proof bundle of the credential {vc_id}

With this folder anybody can check the certificate without the server that issued it.

    python verify.py . --did did.json --vkey log.vkey

needs Python 3.11 or newer and the library `cryptography`, and no network. It reads the signature, compares
the PDF byte for byte, looks the credential up in the status list and follows its proof into the public log.

Whom do you trust? The two files that the command names came with the bundle, so they prove only that they fit
together. Compare them with what the issuer publishes elsewhere:

    issuer   {issuer}
    log      {vkey}

A status list is good until its `validUntil`. Later, fetch a fresh one from
    {status_url}
or judge at a date within it: --as-of {as_of}

credential.json         the signed credential (Open Badges 3.0, W3C Verifiable Credentials 2.0)
certificate.pdf         the certificate that carries it
did.json                the issuer's keys (W3C DID document)
status.json             the issuer's signed list of withdrawn credentials (Bitstring Status List 1.0)
credential.tlog-proof   the path from the credential to a signed checkpoint of the log (C2SP tlog-proof)
log.vkey                the key of the log (C2SP signed-note)
contexts/               the vocabulary that gives the credential's terms their meaning
verify.py               the program
"""


def bundle(rt: Runtime, row: Record) -> bytes | None:
    """Return the bundle of an issued credential; None before its entry is in a published checkpoint.

    Args:
        rt: the runtime.
        row: the credential with its organisation, as `credentials.work` returns it.
    """
    with rt.database.snapshot() as session:
        proof = anchoring.proof_of(session, row.id)
        vkey = anchoring.verifier_key(session, row.mode)
        status = status_lists.served(session, row.status_list_number)
        issuer = issuers.issuer_did(session, row.organisation_id, row.mode)
        keys = issuers.published_keys(session, row.organisation_id, row.mode)
    if proof is None or vkey is None or issuer is None or status is None or status.signed is None:
        return None
    document = did.did_document(issuer, [did.PublishedKey(key.number, key.public_key) for key in keys])
    readme = _README.format(
        vc_id=row.vc_id,
        issuer=issuer,
        vkey=vkey,
        status_url=rt.url(f"/status/{row.status_list_number}"),
        as_of=canonical.read_document(status.signed)["validFrom"],
    )
    return proof_bundle.write_bundle(
        {
            "README.txt": readme.encode(),
            "certificate.pdf": rt.blobs.get(row.pdf_sha256),
            **{f"contexts/{name}": _context(name) for name in _CONTEXT_FILES},
            "credential.json": rt.blobs.get(row.vc_sha256),
            "credential.tlog-proof": proof.encode(),
            "did.json": json.dumps(document, indent=1, sort_keys=True).encode() + b"\n",
            "log.vkey": f"{vkey}\n".encode(),
            "status.json": status.signed,
            "verify.py": standalone.program(),
        }
    )


def _context(name: str) -> bytes:
    return (resources.files("conferral.domain") / "contexts" / name).read_bytes()
