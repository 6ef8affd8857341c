# SPDX-License-Identifier: Apache-2.0
"""Credentials whose standing changes: made, changed, and looked at through the list that is served."""

from __future__ import annotations

import json
from typing import Any

from conferral.domain import status_list
from conferral.services import changing_status, superseding, tenancy
from conferral.services.changing_status import Changed
from conferral.services.issuing import Accepted
from conferral.services.superseding import Changes
from conferral.store import tables
from conferral.store.queries import status_lists
from support.product import Product

SUSPENDABLE = "licence"


def suspendable_template(product: Product) -> None:
    """Add a template whose credentials can be suspended."""
    with product.rt.database.transaction() as session:
        tenancy.add_template(
            product.rt,
            session,
            product.caller.organisation_id,
            SUSPENDABLE,
            design="diploma",
            suspendable=True,
        )


def issued(product: Product, **options: Any) -> str:
    """Issue one credential; return its id."""
    accepted = product.request(**options)
    product.run()
    assert product.credential(accepted.credential_id).state == "issued"
    return accepted.credential_id


def change(product: Product, verb: Any, credential_id: str, *, reason: str | None = None) -> Changed:
    """Say a verb to a credential in a transaction of its own."""
    with product.rt.database.transaction() as session:
        return changing_status.change(product.rt, session, product.caller, verb, credential_id, reason=reason)


def correct(product: Product, credential_id: str, **changes: Any) -> Accepted:
    """Ask for a corrected credential in a transaction of its own."""
    with product.rt.database.transaction() as session:
        return superseding.request(product.rt, session, product.caller, credential_id, Changes(**changes))


def served(product: Product, credential_id: str) -> dict[str, Any]:
    """Return the signed list that a credential stands in, as it is served."""
    row = product.credential(credential_id)
    (found,) = product.rows(tables.status_lists, tables.status_lists.c.number == row.status_list_number)
    document: dict[str, Any] = json.loads(found.signed)
    return document


def bit_of(product: Product, credential_id: str) -> bool:
    """Return a credential's bit in the served list."""
    encoded = served(product, credential_id)["credentialSubject"]["encodedList"]
    return status_list.is_set(
        status_list.decode_list(encoded), product.credential(credential_id).status_index
    )


def lists_equal_rows(product: Product) -> bool:
    """Return whether every served list has exactly the bits that the rows say."""
    for row in product.rows(tables.status_lists):
        with product.rt.database.snapshot() as session:
            wanted = set(status_lists.set_indices(session, row.number, row.purpose))
        encoded = json.loads(row.signed)["credentialSubject"]["encodedList"] if row.signed else None
        if set_bits(encoded) != wanted:
            return False
    return True


def set_bits(encoded: str | None) -> set[int]:
    """Return the indices whose bits are set."""
    bits = status_list.decode_list(encoded) if encoded else b""
    return {
        8 * place + bit for place, byte in enumerate(bits) if byte for bit in range(8) if byte & 0x80 >> bit
    }


def mails(product: Product, credential_id: str) -> list[str]:
    """Return the kinds of the e-mails that were sent about a credential, in order."""
    rows = product.rows(tables.deliveries, tables.deliveries.c.credential_id == credential_id)
    assert {row.state for row in rows} <= {"sent"}
    return [row.kind for row in rows if row.channel == "email"]


def events(product: Product, credential_id: str) -> list[str]:
    """Return the types of a credential's events in order."""
    rows = product.rows(tables.events, tables.events.c.credential_id == credential_id)
    assert [row.sequence for row in sorted(rows, key=lambda row: row.sequence)] == list(
        range(1, len(rows) + 1)
    )
    return [row.type for row in sorted(rows, key=lambda row: row.sequence)]
