# SPDX-License-Identifier: Apache-2.0
"""Take the credential out of a PDF that anybody may have made, in a child that can be killed.

A parser of hostile files never runs in a process that holds keys or connections. What comes back is bytes
that nobody believes yet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

DEADLINE_SECONDS: Final = 5.0  # the start of the child, 0.3 s, included
MOST_BYTES: Final = 10_000_000
_CHILD: Final = "conferral.adapters.pdf_reader_child"
# Nothing of ours: the child has no use for settings, and no way to a network.
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "TZ": "UTC", "MALLOC_ARENA_MAX": "2"}


class PdfUnreadable(Exception):
    """The PDF cannot be read; the reason quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def is_pdf(content: bytes) -> bool:
    """Tell whether a file says to be a PDF; readers look for that in the first kilobyte."""
    return b"%PDF-" in content[:1024]


def attached_credential(pdf: bytes) -> bytes | None:
    """Return the bytes of the attachment `credential.json`, or None when there is none.

    Raises:
        PdfUnreadable: broken, encrypted, too large, several such attachments, or not read in 5 s.
    """
    if len(pdf) > MOST_BYTES:
        raise PdfUnreadable(f"the PDF has more than {MOST_BYTES // 1_000_000} MB")
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", _CHILD],
            input=pdf,
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PdfUnreadable(f"the PDF could not be read within {DEADLINE_SECONDS:g} s") from None
    line, _, attachment = done.stdout.partition(b"\n")
    try:
        header = json.loads(line)
    except ValueError:
        raise PdfUnreadable("the PDF needs more time or memory than a certificate does") from None
    if "refused" in header:
        raise PdfUnreadable(str(header["refused"]))
    return attachment if header["found"] else None
