# SPDX-License-Identifier: Apache-2.0
"""An issuer named by did:web in the product of one process, and short words for changing its keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from conferral.domain import canonical, did
from conferral.services import rotating_keys, signing_keys
from conferral.store import tables
from support.product import Product, product_on

HOST = "https://creds.example.org"
DID = "did:web:creds.example.org:issuers:demo"
K1, K2, K3 = (f"{DID}#k{number}" for number in (1, 2, 3))
YESTERDAY = timedelta(days=1)
PATIENCE = 120.0  # a lease, the last look, a few retries; no daily signature


@contextmanager
def named_product_on(kind: str, folder: Path) -> Iterator[Product]:
    """Yield the product in live mode, reached under a real host name."""
    with product_on(kind, folder, CONFERRAL_PUBLIC_URL=HOST) as built:
        built.caller = dataclasses.replace(built.caller, mode="live")
        yield built


def rotate(product: Product) -> str:
    """Ask for a rotation; return the run's id."""
    with product.rt.database.transaction() as session:
        return rotating_keys.request_rotation(product.rt, session, product.caller).run_id


def withdraw(product: Product, number: int = 1, *, at: datetime | None = None) -> str:
    """Ask for a withdrawal; return the run's id."""
    moment = at or product.time() - YESTERDAY
    with product.rt.database.transaction() as session:
        return rotating_keys.request_withdrawal(product.rt, session, product.caller, number, moment).run_id


def issue(product: Product, count: int = 1) -> list[Any]:
    """Issue credentials; return their rows."""
    ids = [product.request(f"p{number}@example.com").credential_id for number in range(count)]
    product.run()
    return [product.credential(credential_id) for credential_id in ids]


def keys_of(product: Product) -> dict[int, Any]:
    """Return the caller's keys by number."""
    table = tables.signing_keys
    mine = table.c.mode == product.caller.mode
    return {row.number: row for row in product.rows(table, mine)}


def listed_in(product: Product) -> dict[str, bytes]:
    """Return the keys that the DID document allows, as a stranger reads it."""
    document = signing_keys.did_document(product.rt, "demo")
    assert document is not None
    return did.assertion_keys(document)


def document_of(product: Product, digest: str) -> dict[str, Any]:
    """Return a stored credential."""
    return canonical.read_document(product.rt.blobs.get(digest))
