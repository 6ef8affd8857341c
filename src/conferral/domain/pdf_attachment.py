# SPDX-License-Identifier: Apache-2.0
"""The signed credential inside its PDF: one incremental update (ISO 32000-1 7.5.6), equal bytes for all.

Pure: a verifier recomputes `attach` from the prefix, the attachment and the date, and compares the whole
file. So nothing here may depend on a library's version, a clock or chance, and a change of one byte is a new
format version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

ATTACHMENT_NAME = "credential.json"
MEDIA_TYPE = "application/vc"
# Named in the file specification's description, so that a verifier knows which function to recompute.
ATTACH_VERSION = 1
# A document we issued has two ends; one that was re-saved a few times may have more; a hostile one thousands.
MAXIMUM_ENDS = 16
# As wide as the offsets of a classic cross-reference table.
MAXIMUM_BYTES = 9_999_999_999

_TAIL = re.compile(rb"trailer\s*<<(.*)>>\s*startxref\s+(\d+)\s+%%EOF\s*\Z", re.DOTALL)
_ID = re.compile(rb"/ID\s*\[\s*(\((?:[^()\\]|\\.)*\)|<[0-9A-Fa-f\s]*>)", re.DOTALL)
_REFERENCE = rb"/%b\s+(\d+)\s+(\d+)\s+R\b"
_TAIL_BYTES = 4096


class AttachmentRefused(ValueError):
    """The base document is not one that a credential can be attached to."""


@dataclass(frozen=True, slots=True)
class _Base:
    """What an update repeats of the document it extends: object numbers, offsets in bytes, raw PDF tokens."""

    size: int
    previous_table: int
    root: int
    info: bytes
    first_id: bytes
    catalog: bytes


def attach(base: bytes, credential_json: bytes, created: datetime) -> bytes:
    """Return `base` followed by one update that embeds `credential_json` as `credential.json`.

    The result begins with the bytes of `base`; equal arguments give equal bytes. The attachment is associated
    with the document (`/AF`, relationship Data) as PDF/A-3 demands (ISO 19005-3, 6.8).

    Args:
        base: a PDF with a classic cross-reference table and a plain catalog, without attachments of its own.
        credential_json: the signed credential, embedded uncompressed.
        created: the credential's date, aware; seconds are kept.

    Raises:
        AttachmentRefused: `base` is no such PDF.
    """
    document = _read(base)
    date = _pdf_date(created)
    stream_number, file_number = document.size, document.size + 1
    objects = {
        document.root: _catalog_with(document.catalog, file_number),
        stream_number: _embedded_file(credential_json, date),
        file_number: _file_specification(stream_number),
    }
    update = bytearray(b"\n")
    offsets: dict[int, int] = {}
    for number, body in objects.items():
        offsets[number] = len(base) + len(update)
        update += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    return base + bytes(update) + _table(document, offsets, len(base) + len(update), base + credential_json)


def split(final: bytes) -> Iterator[bytes]:
    """Yield the prefixes of `final` that end like a PDF, shortest first, at most `MAXIMUM_ENDS`.

    An end with a line end behind it yields two prefixes: which of them was digested is not for a reader to
    know.
    """
    for end in checked_prefixes(final):
        yield final[:end]


def checked_prefixes(final: bytes) -> list[int]:
    """Return the lengths in bytes of what `split` yields: ascending, at most two for each end."""
    lengths: list[int] = []
    position = -1
    for _ in range(MAXIMUM_ENDS):
        position = final.find(b"%%EOF", position + 1)
        if position < 0:
            break
        end = position + len(b"%%EOF")
        lengths.append(end)
        line_end = re.compile(rb"\r\n|\r|\n").match(final, end)
        if line_end:
            lengths.append(line_end.end())
    return lengths


def check_attachable(base: bytes) -> None:
    """Raise `AttachmentRefused` unless `attach` accepts this document; asked when a template is saved."""
    document = _read(base)
    _catalog_with(document.catalog, document.size + 1)


def _read(base: bytes) -> _Base:
    tail = _TAIL.search(base, max(0, len(base) - _TAIL_BYTES))
    if not base.startswith(b"%PDF-1.") or tail is None:
        raise AttachmentRefused("the document does not end with a classic trailer")
    trailer, table = tail[1], int(tail[2])
    root, info, identifier = _reference(trailer, b"Root"), _reference(trailer, b"Info"), _ID.search(trailer)
    size = re.search(rb"/Size\s+(\d+)", trailer)
    if root is None or size is None or identifier is None:
        raise AttachmentRefused("the trailer names no catalog, no size or no identifier")
    if b"/Prev" in trailer or b"/Encrypt" in trailer or not base.startswith(b"xref", table):
        raise AttachmentRefused("the document is updated, encrypted or has no classic cross-reference table")
    return _Base(
        size=int(size[1]),
        previous_table=table,
        root=root,
        info=b"" if info is None else b"/Info %d 0 R" % info,
        first_id=identifier[1],
        catalog=_object(base, table, root),
    )


def _reference(dictionary: bytes, name: bytes) -> int | None:
    found = re.search(_REFERENCE % name, dictionary)
    if found is None:
        return None
    if int(found[2]) != 0:
        raise AttachmentRefused(f"/{name.decode()} refers to a replaced object")
    return int(found[1])


def _object(base: bytes, table: int, number: int) -> bytes:
    head = re.compile(rb"xref\s+0\s+(\d+)[ ]*(?:\r\n|\r|\n)").match(base, table)
    if head is None or number >= int(head[1]):
        raise AttachmentRefused("the cross-reference table is not one section from zero")
    entry_bytes = 20
    entry = base[head.end() + number * entry_bytes : head.end() + (number + 1) * entry_bytes]
    if re.fullmatch(rb"\d{10} 00000 n(?: \r| \n|\r\n)", entry) is None:
        raise AttachmentRefused("the catalog's cross-reference entry is not in use")
    found = re.compile(rb"%d 0 obj\s*(<<.*?>>)\s*endobj" % number, re.DOTALL).match(base, int(entry[:10]))
    if found is None:
        raise AttachmentRefused("the catalog is not a plain dictionary")
    return found[1]


def _catalog_with(catalog: bytes, file_number: int) -> bytes:
    if any(re.search(rb"/%b\b" % name, catalog) for name in (b"AF", b"EmbeddedFiles", b"Collection")):
        raise AttachmentRefused("the document has attachments of its own")
    tree = b"/EmbeddedFiles<</Names[(%b) %d 0 R]>>" % (ATTACHMENT_NAME.encode(), file_number)
    names = re.search(rb"/Names\b\s*", catalog)
    if names is None:
        merged = catalog[:-2] + b"/Names<<" + tree + b">>>>"
    elif catalog.startswith(b"<<", names.end()):
        merged = catalog[: names.end() + 2] + tree + catalog[names.end() + 2 :]
    else:
        raise AttachmentRefused("the catalog's names are not a dictionary of its own")
    return merged[:-2] + b"/AF[%d 0 R]>>" % file_number


def _embedded_file(content: bytes, date: bytes) -> bytes:
    # MD5 is what the format asks for (ISO 32000-1, table 46); nobody trusts it, the credential carries a
    # signature.
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest().upper().encode()
    return (
        b"<</Type/EmbeddedFile/Subtype/%b/Length %d/Params<</Size %d/ModDate(%b)/CheckSum<%b>>>>>\n"
        b"stream\n%b\nendstream"
    ) % (MEDIA_TYPE.replace("/", "#2F").encode(), len(content), len(content), date, checksum, content)


def _file_specification(stream_number: int) -> bytes:
    name = ATTACHMENT_NAME.encode()
    return (
        b"<</Type/Filespec/F(%b)/UF(%b)/AFRelationship/Data/Desc(Verifiable credential, attach %d)"
        b"/EF<</F %d 0 R/UF %d 0 R>>>>"
    ) % (name, name, ATTACH_VERSION, stream_number, stream_number)


def _table(document: _Base, offsets: dict[int, int], position: int, identified: bytes) -> bytes:
    if position > MAXIMUM_BYTES:
        raise AttachmentRefused("the document is too large for a classic cross-reference table")
    second_id = hashlib.sha256(identified).digest()[:16].hex().upper().encode()
    return b"xref\n%btrailer\n<</Size %d/Root %d 0 R%b/Prev %d/ID[%b<%b>]>>\nstartxref\n%d\n%%%%EOF\n" % (
        _sections(offsets),
        document.size + 2,
        document.root,
        document.info,
        document.previous_table,
        document.first_id,
        second_id,
        position,
    )


def _sections(offsets: dict[int, int]) -> bytes:
    lines = bytearray()
    numbers = sorted(offsets)
    for index, number in enumerate(numbers):
        if index == 0 or numbers[index - 1] != number - 1:
            run = 1
            while index + run < len(numbers) and numbers[index + run] == number + run:
                run += 1
            lines += b"%d %d\n" % (number, run)
        lines += b"%010d 00000 n\r\n" % offsets[number]
    return bytes(lines)


def _pdf_date(moment: datetime) -> bytes:
    if moment.tzinfo is None:
        raise ValueError("the date of an attachment is aware (UTC)")
    return moment.astimezone(UTC).strftime("D:%Y%m%d%H%M%SZ").encode()
