# SPDX-License-Identifier: Apache-2.0
"""A file that somebody brought to be verified: PDF, JSON or proof bundle, read within limits, never stored.

What comes out is bytes that nobody believes yet, and what was found about the PDF around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from conferral.adapters import pdf_reader, proof_bundle
from conferral.domain import canonical
from conferral.domain.offline_check import Brought
from conferral.domain.pdf_binding import check_pdf
from conferral.domain.verification import Finding

MOST_PDF_BYTES: Final = pdf_reader.MOST_BYTES
MOST_JSON_BYTES: Final = canonical.MAX_DOCUMENT_BYTES


@dataclass(frozen=True, slots=True)
class Material:
    """What was brought: a credential that can be judged, or the raw bytes in which none could be read.

    Attributes:
        raw: the file.
        brought: the credential and what lay beside it.
        pdf: the PDF, if there was one.
        remark: why there is no credential, for people.
    """

    raw: bytes
    brought: Brought | None
    pdf: bytes | None = None
    remark: str = ""


def read(content: bytes) -> Material:
    """Take the credential out of a file, whatever kind of file it is."""
    if not content.strip():
        return Material(content, None, remark="The file is empty.")
    if proof_bundle.is_bundle(content):
        return _unpacked(content)
    if not pdf_reader.is_pdf(content):
        return Material(content, Brought(content))
    try:
        attached = pdf_reader.attached_credential(content)
    except pdf_reader.PdfUnreadable as unreadable:
        return Material(content, None, content, _sentence(unreadable.reason))
    if attached is None:
        return Material(content, None, content, "There is no credential in this PDF.")
    return Material(content, Brought(attached, _pdf_digest(content, attached)), content)


def is_small_kind(content: bytes) -> bool:
    """Tell whether a file is of the kind that has the smaller limit: neither a PDF nor a bundle."""
    return not pdf_reader.is_pdf(content) and not proof_bundle.is_bundle(content)


def _unpacked(content: bytes) -> Material:
    try:
        bundle = proof_bundle.read_bundle(content)
    except proof_bundle.BundleUnreadable as unreadable:
        return Material(content, None, remark=_sentence(unreadable.reason))
    if bundle.credential is None:
        return Material(content, None, remark="There is no credential in this bundle.")
    digest = _pdf_digest(bundle.pdf, bundle.credential) if bundle.pdf is not None else None
    brought = Brought(bundle.credential, digest, bundle.status_list, bundle.tlog_proof)
    return Material(content, brought, bundle.pdf)


def _pdf_digest(pdf: bytes, attached: bytes) -> Finding | None:
    try:
        return check_pdf(pdf, attached, canonical.read_document(attached))
    except canonical.UnsafeDocument:
        return None  # the signature will be false


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:]}."
