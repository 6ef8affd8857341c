# SPDX-License-Identifier: Apache-2.0
"""A picture of a certificate, drawn by the design that made the PDF, from the same data."""

from __future__ import annotations

from typing import Final

from conferral.domain import credential
from conferral.services import making
from conferral.services.runtime import Runtime
from conferral.store.queries import credentials

# A landscape A4 page becomes 1,286 pixels wide: sharp on a page that shows it at half of that.
PIXELS_AN_INCH: Final = 110
SHOWN: Final = (credential.ISSUED, credential.SUSPENDED)
"""A withdrawn or replaced certificate is not shown as if it were one."""


def key_of(rt: Runtime, token: str) -> str | None:
    """Return what names the picture of a public token, None when there is nothing to show."""
    with rt.database.snapshot() as session:
        row = credentials.by_token(session, token)
    return str(row.pdf_sha256) if row is not None and row.state in SHOWN else None


def draw(rt: Runtime, token: str) -> bytes:
    """Return the first page as PNG.

    Raises:
        KeyError: the token names nothing.
        Retryable: `render_timeout`, `render_crashed`.
        Permanent: `template_invalid`, `text_unprintable`.
    """
    with rt.database.snapshot() as session:
        row = credentials.by_token(session, token)
    if row is None:
        raise KeyError(token)
    version, data = making.document(rt, row)
    timestamp = int(row.created_at.timestamp())
    return rt.renderer.preview(version, data, timestamp=timestamp, ppi=PIXELS_AN_INCH)
