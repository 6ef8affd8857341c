# SPDX-License-Identifier: Apache-2.0
"""The child that parses a stranger's PDF: started by `conferral.adapters.pdf_reader`, killed by it, too.

It reads the file from its input, limits itself before the parser is loaded, and answers one line of JSON,
followed by the attachment's bytes. It knows no secret, opens no file and holds nothing worth taking.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

ATTACHMENT = "credential.json"
MOST_BYTES = 10_000_000
MOST_OBJECTS = 5_000  # a certificate has some 60
MOST_ATTACHMENT_BYTES = 256 * 1024  # as `canonical.MAX_DOCUMENT_BYTES`
ADDRESS_SPACE_BYTES = 1_000_000_000  # the interpreter, the parser and a file of 10 MB need 200 MB
CPU_SECONDS = 4  # a certificate takes 0.02
OPEN_FILES = 16
# An attachment has one name tree entry; deeper trees are somebody's trap.
_DEEPEST_TREE = 8


class Unreadable(Exception):
    """The file cannot be read; the message says why and quotes nothing of it."""


def main() -> None:
    """Answer `{"found": …, "bytes": n}` and n bytes, or `{"refused": reason}`."""
    content = sys.stdin.buffer.read(MOST_BYTES + 1)
    limit_resources()
    try:
        attachment = read(content)
        header: dict[str, Any] = {"found": attachment is not None, "bytes": len(attachment or b"")}
    except Unreadable as unreadable:
        attachment, header = None, {"refused": str(unreadable)}
    except MemoryError:
        attachment, header = None, {"refused": "the PDF unpacks to more than is read"}
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + (attachment or b""))
    sys.stdout.buffer.flush()


def limit_resources(cpu_seconds: int = CPU_SECONDS) -> None:
    """Bound memory and time (of the processor, from the start of the process), and forbid writing files."""
    for kind, most in (
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def read(content: bytes) -> bytes | None:
    """Return the bytes of the one attachment `credential.json`; None when there is none.

    Raises:
        Unreadable: not a PDF, encrypted, too large, too many objects, or several such attachments.
    """
    import io

    import pikepdf

    if len(content) > MOST_BYTES:
        raise Unreadable(f"the PDF has more than {MOST_BYTES // 1_000_000} MB")
    try:
        with pikepdf.open(io.BytesIO(content), suppress_warnings=True) as pdf:
            if len(pdf.objects) > MOST_OBJECTS:
                raise Unreadable(f"the PDF has more than {MOST_OBJECTS:,} objects")
            streams = list(_attached(pdf.Root.get("/Names", {}), _DEEPEST_TREE))
            if len(streams) > 1:
                raise Unreadable(f"the PDF has several attachments {ATTACHMENT}")
            attachment = bytes(streams[0].read_bytes()) if streams else None
    except pikepdf.PasswordError:
        raise Unreadable("the PDF is encrypted") from None
    except (pikepdf.PdfError, pikepdf.DataDecodingError, AttributeError, TypeError, ValueError, KeyError):
        raise Unreadable("the file is not a PDF that can be read") from None
    if attachment is not None and len(attachment) > MOST_ATTACHMENT_BYTES:
        raise Unreadable("the credential in the PDF is larger than 256 KiB")
    return attachment


def _attached(names: Any, depth: int) -> Any:
    """Yield the stream of every entry of the name tree that is called `credential.json`."""
    tree = names.get("/EmbeddedFiles", {}) if depth == _DEEPEST_TREE else names
    if depth == 0:
        raise Unreadable("the attachments are nested too deep")
    entries = list(tree.get("/Names", []))
    for position in range(1, len(entries), 2):
        specification = entries[position]
        called = {str(specification.get(key, "")) for key in ("/F", "/UF")}
        if ATTACHMENT in called or str(entries[position - 1]) == ATTACHMENT:
            yield specification["/EF"]["/F"]
    for child in list(tree.get("/Kids", [])):
        yield from _attached(child, depth - 1)


if __name__ == "__main__":
    main()
