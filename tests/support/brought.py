# SPDX-License-Identifier: Apache-2.0
"""Two certificates that were issued, what strangers make of them, and `/verify` to bring them to."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pikepdf
from werkzeug.test import TestResponse

from support.product import product_on
from support.web import ISSUE, Web, body, web_of

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}


@dataclass
class Brought:
    """Two certificates that were issued, and how to bring files."""

    web: Web
    rows: list[Any]
    pdfs: list[bytes]
    documents: list[bytes]

    def bring(self, content: bytes, name: str = "certificate.pdf", **headers: str) -> TestResponse:
        """Send a file with the form of the page."""
        form = {"file": (io.BytesIO(content), name), "text": ""}
        return self.web.client.post("/verify", data=form, headers={**JSON, **headers})

    def raw(self, content: bytes, kind: str) -> TestResponse:
        """Send a file as the body."""
        return self.web.client.post("/verify", data=content, content_type=kind, headers=JSON)

    def verdict(self, content: bytes, name: str = "certificate.pdf") -> dict[str, Any]:
        """Return the answer to a file as data."""
        answer = self.bring(content, name)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return dict(answer.json or {})

    def document(self, which: int = 0) -> dict[str, Any]:
        """Return a signed document, to be changed."""
        return dict(json.loads(self.documents[which]))


@contextmanager
def two_certificates(folder: Path) -> Iterator[Brought]:
    """Yield the application with two certificates."""
    with product_on("sqlite", folder, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        web = web_of(product)
        rows = []
        for name in ("Ada Lovelace", "Grace Hopper"):
            made = web.post(ISSUE, body(recipient={"name": name, "email": "x@example.com"}, external_id=name))
            product.run()
            rows.append(product.credential(made.json["credential_id"]))
        pdfs = [product.rt.blobs.get(row.pdf_sha256) for row in rows]
        documents = [product.rt.blobs.get(row.vc_sha256) for row in rows]
        yield Brought(web, rows, pdfs, documents)


def resaved(pdf: bytes) -> bytes:
    """Return the PDF as another program writes it."""
    again = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf)) as opened:
        opened.save(again)
    return again.getvalue()


def foreign_pdf(attachment: bytes) -> bytes:
    """Return another PDF that carries a credential."""
    made = pikepdf.new()
    made.add_blank_page()
    made.attachments["credential.json"] = pikepdf.AttachedFileSpec(
        made, attachment, filename="credential.json"
    )
    out = io.BytesIO()
    made.save(out)
    made.close()
    return out.getvalue()


def with_text_changed(pdf: bytes) -> bytes:
    """Return the PDF with something else in the stream of its pages, all else in its place."""
    position = pdf.index(b"stream\n") + 200
    return pdf[:position] + bytes([pdf[position] ^ 1]) + pdf[position + 1 :]
