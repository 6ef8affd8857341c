# SPDX-License-Identifier: Apache-2.0
"""Credentials whose standing changes: made, changed, and looked at through the list that is served."""

from __future__ import annotations

import json
from typing import Any

from conferral.domain import status_list
from conferral.domain.credential import ISSUED
from conferral.services import admission, changing_status, superseding, tenancy
from conferral.services.admission import Admitted, Wanted
from conferral.services.changing_status import Changed
from conferral.services.issuing import Accepted
from conferral.services.superseding import Changes
from conferral.store import tables
from conferral.store.queries import batches, credentials, status_lists
from support.product import Product

SUSPENDABLE = "licence"
CREDENTIAL: dict[str, Any] = {
    "template": "diploma",
    "recipient_name": "Ada Lovelace",
    "recipient_email": "ada@example.com",
    "fields": {"course": "Applied Statistics"},
}
CHUNK = 500


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
    if product.credential(accepted.credential_id).state != ISSUED:
        product.run(patience_seconds=120)  # a busy machine renders slowly: then it is tried again
    assert product.credential(accepted.credential_id).state == "issued"
    return accepted.credential_id


def issued_rows(product: Product, count: int, *, template: str = "diploma", batch: bool = False) -> list[str]:
    """Insert issued credentials without rendering them, for tests that never look at their bytes."""
    rt, ids = product.rt, []
    batch_id = rt.new_id("bat") if batch else None
    for at in range(0, count, CHUNK):
        size = min(CHUNK, count - at)
        with rt.database.transaction() as session:
            found = admission.find_template(session, product.caller.organisation_id, template)
            if batch_id and at == 0:
                batches.add(
                    session, [{"number": 1, "content": {}}], id=batch_id, mode=product.caller.mode,
                    total=count, organisation_id=product.caller.organisation_id,
                    template_version_id=found.version_id,
                    name="class", state="running", send_email=True, created_at=rt.database.now(),
                )  # fmt: skip
            checked = admission.check(rt, found.design, Wanted(**CREDENTIAL))
            assert isinstance(checked, Admitted)
            rows = admission.rows(
                rt, session, product.caller, found, [checked] * size, batch_id=batch_id,
                batch_rows=range(at + 1, at + size + 1) if batch_id else (),
            )  # fmt: skip
            signed = {"vc_sha256": "0" * 64, "pdf_sha256": "0" * 64, "issued_at": rt.database.now()}
            ids += credentials.add_all(session, [{**row, "state": ISSUED, **signed} for row in rows])
    return sorted(ids)


def signatures(product: Product) -> int:
    """Return how often the lists were signed."""
    return sum(row.version for row in product.rows(tables.status_lists))


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
