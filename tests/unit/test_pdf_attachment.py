# SPDX-License-Identifier: Apache-2.0
"""`attach` on hand-made documents: its bytes, what it refuses, and the prefixes a verifier looks at."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conferral.domain.pdf_attachment import (
    MAXIMUM_ENDS,
    AttachmentRefused,
    attach,
    check_attachable,
    checked_prefixes,
    split,
)

CREATED = datetime(2026, 7, 3, 9, 30, 15, tzinfo=UTC)
GOLDEN_SHA256 = "02ee8375fd50a9834c3c9cdb45d8f48d9237da604e5e550d7a39ba6400c9fe85"


def document(catalog: bytes = b"/Type/Catalog/Pages 2 0 R", trailer: bytes = b"/Info 3 0 R") -> bytes:
    """Build a PDF as typst writes it: classic table, catalog a plain dictionary, no line end at the end."""
    bodies = [b"<<%b>>" % catalog, b"<</Type/Pages/Count 0/Kids[]>>", b"<</Producer(test)>>"]
    pdf = bytearray(b"%PDF-1.7\n%\x80\x80\x80\x80\n\n")
    entries = bytearray(b"0000000000 65535 f\r\n")
    for number, body in enumerate(bodies, start=1):
        entries += b"%010d 00000 n\r\n" % len(pdf)
        pdf += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = len(pdf)
    pdf += b"xref\n0 %d\n%b" % (len(bodies) + 1, entries)
    ids = b"/ID[(a\\)b)(a\\)b)]"
    pdf += b"trailer\n<</Size 4/Root 1 0 R%b%b>>\nstartxref\n%d\n%%%%EOF" % (trailer, ids, table)
    return bytes(pdf)


def test_the_base_is_a_prefix_of_the_final_document() -> None:
    """The signed digest of the base can be checked from the final document's first bytes."""
    base = document()
    assert attach(base, b"{}", CREATED).startswith(base + b"\n1 0 obj\n")


@given(content=st.binary(max_size=200), seconds=st.integers(0, 2_000_000_000))
def test_equal_arguments_give_equal_bytes(content: bytes, seconds: int) -> None:
    """A verifier recomputes the document, whatever time zone its clock has."""
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert attach(document(), content, moment) == attach(document(), content, elsewhere)


def test_the_bytes_stay_what_they_were() -> None:
    """Issued documents stay verifiable: another byte would be another format version."""
    final = attach(document(), b'{"id":"urn:uuid:1"}', CREATED)
    assert hashlib.sha256(final).hexdigest() == GOLDEN_SHA256


def test_every_offset_leads_to_its_object() -> None:
    """A reader that trusts the new table finds the objects at the offsets given."""
    base = document()
    final = attach(base, b"{}", CREATED)
    table = int(final.rsplit(b"startxref\n", 1)[1].split(b"\n", 1)[0])
    lines = final[table:].split(b"trailer", 1)[0].splitlines()
    assert lines[:2] == [b"xref", b"1 1"]
    offsets = {1: int(lines[2][:10]), 4: int(lines[4][:10]), 5: int(lines[5][:10])}
    assert lines[3] == b"4 2"
    assert all(final.startswith(b"%d 0 obj\n" % number, offset) for number, offset in offsets.items())


def test_names_of_the_base_are_kept() -> None:
    """A template with labelled headings keeps its destinations beside the attachment."""
    final = attach(document(b"/Type/Catalog/Names<</Dests 9 0 R>>/Pages 2 0 R"), b"{}", CREATED)
    assert b"/Names<</EmbeddedFiles<</Names[(credential.json) 5 0 R]>>/Dests 9 0 R>>" in final


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (b"", "trailer"),
        (b"%PDF-2.0\n" + document()[9:], "trailer"),
        (document(trailer=b"/Info 3 0 R/Prev 12"), "updated"),
        (document(trailer=b"/Encrypt 3 0 R"), "encrypted"),
        (document().replace(b"/Root 1 0 R", b"/Root 1 1 R"), "replaced"),
        (document().replace(b"/Root 1 0 R", b"/Root 9 0 R"), "table"),
        (document().replace(b"/Size 4", b"/Sice 4"), "no size"),
        (document().replace(b"xref\n0 4", b"xref\n1 4"), "table"),
        (document(b"/Type/Catalog/AF[3 0 R]"), "attachments"),
        (document(b"/Type/Catalog/Names<</EmbeddedFiles 3 0 R>>"), "attachments"),
        (document(b"/Type/Catalog/Names 3 0 R"), "names"),
        (attach(document(), b"{}", CREATED), "updated"),
    ],
)
def test_a_base_of_another_kind_is_refused(base: bytes, reason: str) -> None:
    """What `attach` relies on is checked and never assumed, also when a template is saved."""
    for act in (lambda: attach(base, b"{}", CREATED), lambda: check_attachable(base)):
        with pytest.raises(AttachmentRefused, match=reason):
            act()


def test_a_naive_date_is_refused() -> None:
    """A date without a zone would mean other bytes on another host."""
    with pytest.raises(ValueError, match="aware"):
        attach(document(), b"{}", datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


def test_the_base_is_among_the_prefixes() -> None:
    """A verifier finds the base by trying the document's ends, and the whole document is the last one."""
    base = document()
    final = attach(base, b"{}", CREATED)
    assert list(split(final)) == [base, base + b"\n", final[:-1], final]


@given(st.binary(max_size=60))
def test_prefixes_are_bounded_and_ascending(noise: bytes) -> None:
    """Thousands of ends in a hostile document cost no more than sixteen."""
    lengths = checked_prefixes((b"%%EOF" + noise) * 40)
    assert lengths == sorted(set(lengths))
    assert 0 < len(lengths) <= 2 * MAXIMUM_ENDS
