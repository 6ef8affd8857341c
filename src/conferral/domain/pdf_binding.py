# SPDX-License-Identifier: Apache-2.0
"""Is this PDF the one that its credential was signed with? Recomputed, never believed.

A right beginning proves nothing: a later update may repaint the page. So the whole file has to be what
`attach` makes of the signed beginning and the credential.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from conferral.domain.data_integrity import ProofRefused, read_proof
from conferral.domain.pdf_attachment import AttachmentRefused, attach, split
from conferral.domain.verification import Finding, fails, holds, untold

PDF_MEDIA_TYPE: Final = "application/pdf"
_PAGE_ADDRESS: Final = re.compile(rb"/c/([1-9A-HJ-NP-Za-km-z]{22})(?![1-9A-HJ-NP-Za-km-z])")
_FIRST_ID: Final = re.compile(rb"/ID\s*\[\s*(\((?:[^()\\]|\\.){4,64}\)|<[0-9A-Fa-f]{8,64}>)")
_SRI_PREFIX: Final = "sha384-"
_SHA384_BYTES: Final = 48


def check_pdf(pdf: bytes, attachment: bytes, document: Mapping[str, Any]) -> Finding:
    """Check that a PDF is exactly what was issued with this credential.

    Args:
        pdf: the whole file.
        attachment: the bytes of its `credential.json`, as they stand in it.
        document: the same, parsed; believed only if its signature is true, which others check.

    Returns:
        True; false with what differs; null when the credential names no PDF.
    """
    signed = _signed_digest(document)
    if signed is None:
        return untold("the credential names no PDF by its digest")
    created = _created(document)
    for prefix in split(pdf):
        if hashlib.sha384(prefix).digest() != signed:
            continue
        if created is not None and _is_made_of(pdf, prefix, attachment, created):
            return holds("the PDF is the one that was signed, and nothing was added to it")
        return fails("something was added to the PDF, or changed, after it was issued")
    return fails("the pages are not those that were signed")


def describe_difference(pdf: bytes, base: bytes, token: str) -> str:
    """Say what a PDF is that is not the one issued with a credential: changed, extended, or another one.

    Args:
        pdf: what was brought.
        base: the pages that were signed, from our own files.
        token: the public token printed on them.
    """
    if pdf.startswith(base):
        return "something was added to the PDF after it was issued"
    own = _FIRST_ID.search(base)
    if own is not None and own[1] in pdf and len(pdf) >= len(base):
        return "the pages were changed after they were issued"
    others = {found.decode() for found in _PAGE_ADDRESS.findall(pdf)} - {token}
    if others:
        return "the credential was put into the pages of another certificate"
    if token.encode() in pdf:
        return "the PDF was saved again or changed after it was issued"
    return "the credential was put into another PDF; its pages were not issued with it"


def _is_made_of(pdf: bytes, prefix: bytes, attachment: bytes, created: datetime) -> bool:
    try:
        return attach(prefix, attachment, created) == pdf
    except AttachmentRefused:
        return False


def _signed_digest(document: Mapping[str, Any]) -> bytes | None:
    resources = document.get("relatedResource")
    for resource in resources if isinstance(resources, list) else [resources]:
        if not isinstance(resource, dict) or resource.get("mediaType") != PDF_MEDIA_TYPE:
            continue
        text = resource.get("digestSRI")
        if not isinstance(text, str) or not text.startswith(_SRI_PREFIX):
            continue
        try:
            digest = base64.b64decode(text.removeprefix(_SRI_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(digest) == _SHA384_BYTES:
            return digest
    return None


def _created(document: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(read_proof(document).get("created")))
    except (ProofRefused, ValueError):
        return None
