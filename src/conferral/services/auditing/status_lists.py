# SPDX-License-Identifier: Apache-2.0
"""A13, and A4 for status lists: what is signed says what the rows say, and the issuer's key signed it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from conferral.domain import status_list
from conferral.domain.audit import Deviation
from conferral.domain.canonical import UnsafeDocument, read_document
from conferral.domain.data_integrity import ProofRefused, check_proof, read_proof
from conferral.services import signing_keys
from conferral.services.auditing.looking import Audit, Finding
from conferral.services.status_lists import MANY_WITHIN
from conferral.store import tables
from conferral.store.queries import auditing
from conferral.store.queries import status_lists as lists
from conferral.store.records import Record

ON_ITS_WAY: Final = MANY_WITHIN + timedelta(seconds=60)
"""A change is signed within the longest delay of publishing; a minute more is no deviation yet."""
SHOWN: Final = 20  # wrong bits of one list


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at every status list."""

    def judge(numbers: Sequence[int | str]) -> Iterator[Deviation]:
        for number in numbers:
            yield from _judge_list(audit, int(number))

    yield from audit.through("status lists", tables.status_lists.c.number, judge)


def _judge_list(audit: Audit, number: int) -> Iterator[Deviation]:
    with audit.rt.database.still() as session:
        row = lists.served(session, number)
        if row is None:
            return
        expected = set(lists.set_indices(session, number, row.purpose))
        created_at = auditing.list_created_at(session, number)
    recently = audit.rt.database.now() - ON_ITS_WAY
    if row.signed is None:
        if created_at < recently:
            yield _found("A13", number, "was never signed")
        return
    document = _read(row)
    if document is None:
        yield _found("A13", number, "cannot be read")
        return
    if audit.wants("A4"):
        yield from _judge_signature(audit, number, row, document)
    try:
        subject = document["credentialSubject"]
        bits = status_list.decode_list(subject["encodedList"])
        is_of_purpose = subject["statusPurpose"] == row.purpose
    except (status_list.MalformedStatusList, KeyError, TypeError):
        yield _found("A13", number, "cannot be read")
        return
    if not is_of_purpose:
        yield _found("A13", number, f"says another purpose than {row.purpose}")
    wrong = sorted(_set_bits(bits) ^ expected)
    for index in wrong[:SHOWN]:
        yield from _judge_bit(audit, number, index, is_expected=index in expected)
    if len(wrong) > SHOWN:
        yield _found("A13", number, f"has {len(wrong)} wrong bits")


def _read(row: Record) -> dict[str, Any] | None:
    try:
        return read_document(row.signed)
    except UnsafeDocument:
        return None


def _set_bits(bits: bytes) -> set[int]:
    return {
        index
        for place, byte in enumerate(bits)
        if byte
        for index in range(8 * place, 8 * place + 8)
        if status_list.is_set(bits, index)
    }


def _judge_bit(audit: Audit, number: int, index: int, *, is_expected: bool) -> Iterator[Deviation]:
    with audit.rt.database.snapshot() as session:
        held = auditing.at_index(session, number, index)
    if held is None:
        yield _found("A13", number, f"bit {index} is set, and nobody was given it")
        return
    changed_at = held.status_changed_at
    if changed_at is not None and changed_at > audit.rt.database.now() - ON_ITS_WAY:
        return
    fault = "clear, and its row is withdrawn" if is_expected else "set, and its row is not withdrawn"
    yield _found("A13", number, f"bit {index} ({held.id}) is {fault}")


def _judge_signature(audit: Audit, number: int, row: Record, document: dict[str, Any]) -> Iterator[Deviation]:
    known = signing_keys.known(audit.rt, row.organisation_id, row.mode)
    try:
        method = str(read_proof(document)["verificationMethod"])
        if method in known:
            check_proof(document, known[method].public_key)
            return
        yield _found("A4", number, f"names a key that its issuer never had: {method}")
    except ProofRefused as refused:
        yield _found("A4", number, f"{refused}")


def _found(check: str, number: int, text: str) -> Deviation:
    return Deviation(check, f"status list {number}", text, key=str(number))
