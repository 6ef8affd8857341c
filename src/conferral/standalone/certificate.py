# SPDX-License-Identifier: Apache-2.0
"""The PDF: what was issued is the signed pages and one update that carries the credential, byte for byte.

No PDF is parsed here. The update is made again from the signed pages and the credential, and the whole file
has to be equal: a right beginning proves nothing, because a later update may paint over it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from conferral.standalone.statements import MOST_BYTES, Unsound

MOST_ENDS = 16
MOST_STREAMS = 5_000
OWN_STREAM = re.compile(rb"/Type/EmbeddedFile/Subtype/application#2Fvc/Length (\d{1,7})/[^\n]*\nstream\n")
ANY_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\n?endstream", re.DOTALL)
TRAILER = re.compile(rb"trailer\s*<<(.*)>>\s*startxref\s+(\d+)\s+%%EOF\s*\Z", re.DOTALL)
FIRST_ID = re.compile(rb"/ID\s*\[\s*(\((?:[^()\\]|\\.)*\)|<[0-9A-Fa-f\s]*>)", re.DOTALL)


def credential_in(pdf: bytes) -> bytes | None:
    """Return the bytes of the credential in a PDF, believed by nobody yet."""
    own = list(OWN_STREAM.finditer(pdf))
    if own:
        return pdf[own[-1].end() : own[-1].end() + int(own[-1][1])]
    return next(_packed_credentials(pdf), None)


def check_pdf(pdf: bytes, attachment: bytes, document: dict[str, Any]) -> tuple[bool | None, str]:
    """Check that a PDF is exactly what was issued with this credential."""
    signed = _signed_digest(document)
    if signed is None:
        return None, "the credential names no PDF by its digest"
    for prefix in _prefixes(pdf):
        if hashlib.sha384(prefix).digest() != signed:
            continue
        try:
            created = datetime.fromisoformat(document["proof"]["created"])
            is_equal = _attached(prefix, attachment, created) == pdf
        except (Unsound, KeyError, TypeError, ValueError, AttributeError):
            is_equal = False
        if is_equal:
            return True, "the PDF is the one that was signed, and nothing was added to it"
        return False, "something was added to the PDF, or changed, after it was issued"
    return False, "the pages are not those that were signed"


def _packed_credentials(pdf: bytes) -> Iterator[bytes]:
    """Look for the credential in a PDF that another program saved again."""
    for number, found in enumerate(ANY_STREAM.finditer(pdf)):
        if number >= MOST_STREAMS:
            return
        content = found[1]
        try:
            content = zlib.decompressobj().decompress(content, MOST_BYTES)
        except zlib.error:
            content = content[:MOST_BYTES]
        if content.lstrip()[:1] == b"{" and b'"credentialSubject"' in content:
            yield content


def _signed_digest(document: dict[str, Any]) -> bytes | None:
    resources = document.get("relatedResource")
    for resource in resources if isinstance(resources, list) else [resources]:
        if not isinstance(resource, dict) or resource.get("mediaType") != "application/pdf":
            continue
        text = resource.get("digestSRI")
        if isinstance(text, str) and text.startswith("sha384-"):
            try:
                return base64.b64decode(text.removeprefix("sha384-"), validate=True)
            except ValueError:
                continue
    return None


def _prefixes(pdf: bytes) -> Iterator[bytes]:
    position = -1
    for _ in range(MOST_ENDS):
        position = pdf.find(b"%%EOF", position + 1)
        if position < 0:
            return
        end = position + len(b"%%EOF")
        yield pdf[:end]
        line_end = re.compile(rb"\r\n|\r|\n").match(pdf, end)
        if line_end:
            yield pdf[: line_end.end()]


def _attached(base: bytes, content: bytes, created: datetime) -> bytes:
    """Attach a credential as the issuer does (attach 1)."""
    tail = TRAILER.search(base, max(0, len(base) - 4096))
    if tail is None or b"/Prev" in tail[1]:
        raise Unsound("the pages do not end with a plain trailer")
    table = int(tail[2])
    size, root, info, identifier = (
        re.search(pattern, tail[1])
        for pattern in (rb"/Size\s+(\d+)", rb"/Root\s+(\d+)\s+0\s+R", rb"/Info\s+(\d+)\s+0\s+R", FIRST_ID)
    )
    if size is None or root is None or identifier is None:
        raise Unsound("the trailer is not complete")
    stream, file = int(size[1]), int(size[1]) + 1
    date = created.astimezone(UTC).strftime("D:%Y%m%d%H%M%SZ").encode()
    objects = {
        int(root[1]): _catalog(_pdf_object(base, table, int(root[1])), file),
        stream: _embedded(content, date),
        file: b"<</Type/Filespec/F(credential.json)/UF(credential.json)/AFRelationship/Data"
        b"/Desc(Verifiable credential, attach 1)/EF<</F %d 0 R/UF %d 0 R>>>>" % (stream, stream),
    }
    update, offsets = bytearray(b"\n"), {}
    for number, body in objects.items():
        offsets[number] = len(base) + len(update)
        update += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    position = len(base) + len(update)
    second = hashlib.sha256(base + content).digest()[:16].hex().upper().encode()
    named = b"/Info %d 0 R" % int(info[1]) if info else b""
    ending = b"xref\n%btrailer\n<</Size %d/Root %d 0 R%b/Prev %d/ID[%b<%b>]>>\nstartxref\n%d\n%%%%EOF\n" % (
        _sections(offsets), file + 1, int(root[1]), named, table, identifier[1], second, position,
    )  # fmt: skip
    return base + bytes(update) + ending


def _pdf_object(base: bytes, table: int, number: int) -> bytes:
    head = re.compile(rb"xref\s+0\s+(\d+)[ ]*(?:\r\n|\r|\n)").match(base, table)
    if head is None or number >= int(head[1]):
        raise Unsound("the table of the pages is not one section")
    entry = base[head.end() + 20 * number : head.end() + 20 * number + 10]
    found = re.compile(rb"%d 0 obj\s*(<<.*?>>)\s*endobj" % number, re.DOTALL).match(base, int(entry))
    if found is None:
        raise Unsound("the catalog is not a plain dictionary")
    return found[1]


def _catalog(catalog: bytes, file: int) -> bytes:
    tree = b"/EmbeddedFiles<</Names[(credential.json) %d 0 R]>>" % file
    names = re.search(rb"/Names\b\s*<<", catalog)
    if names is None:
        merged = catalog[:-2] + b"/Names<<" + tree + b">>>>"
    else:
        merged = catalog[: names.end()] + tree + catalog[names.end() :]
    return merged[:-2] + b"/AF[%d 0 R]>>" % file


def _embedded(content: bytes, date: bytes) -> bytes:
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest().upper().encode()
    return (
        b"<</Type/EmbeddedFile/Subtype/application#2Fvc/Length %d/Params<</Size %d/ModDate(%b)"
        b"/CheckSum<%b>>>>>\nstream\n%b\nendstream"
    ) % (len(content), len(content), date, checksum, content)


def _sections(offsets: dict[int, int]) -> bytes:
    lines, numbers = bytearray(), sorted(offsets)
    for place, number in enumerate(numbers):
        if place == 0 or numbers[place - 1] != number - 1:
            run = 1
            while place + run < len(numbers) and numbers[place + run] == number + run:
                run += 1
            lines += b"%d %d\n" % (number, run)
        lines += b"%010d 00000 n\r\n" % offsets[number]
    return bytes(lines)
