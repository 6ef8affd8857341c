# SPDX-License-Identifier: Apache-2.0
"""What strangers upload to be verified: read from the wire within limits, kept in memory, never stored.

Parsing is expensive, so only a few requests of a process may do it at a time; a page that is asked for
meanwhile does not wait for them.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import IO, Final

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from conferral.adapters import brought_file
from conferral.adapters.brought_file import MOST_JSON_BYTES, MOST_PDF_BYTES
from conferral.domain.problems import Problem

JSON_TYPES: Final = frozenset({"application/json", "application/vc", "application/ld+json", "text/json"})
FILE_TYPES: Final = frozenset({"application/pdf", "application/zip", "application/octet-stream"})
FORM_TYPES: Final = frozenset({"multipart/form-data", "application/x-www-form-urlencoded"})
FORM_ROOM: Final = 64 * 1024  # bytes around a file in a form
MOST_PARTS: Final = 8
MOST_AT_ONCE: Final = 3  # children of one web process that parse; each takes half a second of a core
PATIENCE_SECONDS: Final = 3.0  # how long a request waits for its turn

_places = threading.BoundedSemaphore(MOST_AT_ONCE)


@contextlib.contextmanager
def place() -> Iterator[None]:
    """Take one of the places in which strangers' files are parsed.

    Raises:
        Problem: `temporary_reduced_capacity` when none is free within three seconds.
    """
    if not _places.acquire(timeout=PATIENCE_SECONDS):
        raise Problem("temporary_reduced_capacity", "many files are being verified; come back in a moment")
    try:
        yield
    finally:
        _places.release()


def read() -> bytes:
    """Return the file of this request: the body itself, or the first filled field of a form.

    Raises:
        Problem: `body_too_large`, `media_type_unsupported`.
    """
    kind = request.mimetype
    try:
        if kind in JSON_TYPES:
            return _body(MOST_JSON_BYTES)
        if kind in FILE_TYPES:
            content = _body(MOST_PDF_BYTES)
        elif kind in FORM_TYPES:
            content = _form(kind)
        else:
            detail = "send a PDF, a JSON document (application/json, application/vc), or the form of /verify"
            raise Problem("media_type_unsupported", detail)
    except RequestEntityTooLarge:
        raise _too_large() from None
    if len(content) > (MOST_JSON_BYTES if brought_file.is_small_kind(content) else MOST_PDF_BYTES):
        raise _too_large()
    return content


def _body(most: int) -> bytes:
    request.max_content_length = most
    return request.get_data(cache=False)


def _form(kind: str) -> bytes:
    """Return what a form brings; werkzeug's own parser would write large parts to a temporary file."""
    request.max_content_length = MOST_PDF_BYTES + FORM_ROOM
    parser = FormDataParser(
        stream_factory=_in_memory,
        # Escaped text in a plain form may be three times as long as what it says.
        max_form_memory_size=3 * MOST_JSON_BYTES,
        max_form_parts=MOST_PARTS,
    )
    _, fields, files = parser.parse(request.stream, kind, request.content_length, request.mimetype_params)
    try:
        for file in files.getlist("file"):
            if content := file.stream.read(MOST_PDF_BYTES + 1):
                return bytes(content)
    finally:
        for file in files.values():
            file.close()
    return str(fields.get("text", "")).strip().encode("utf-8", "replace")


def _in_memory(
    total_content_length: int | None,
    content_type: str | None,
    filename: str | None,
    content_length: int | None = None,
) -> IO[bytes]:
    del total_content_length, content_type, filename, content_length
    return io.BytesIO()


def _too_large() -> Problem:
    megabytes, kibibytes = MOST_PDF_BYTES // 1_000_000, MOST_JSON_BYTES // 1024
    return Problem("body_too_large", f"a PDF may have {megabytes} MB, a JSON document {kibibytes} KiB")
