# SPDX-License-Identifier: Apache-2.0
"""A3 and A4 for one credential: its files are the recorded ones, belong together, and are soundly signed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from conferral.domain.audit import Deviation
from conferral.domain.canonical import UnsafeDocument, read_document
from conferral.domain.data_integrity import ProofRefused, check_proof, read_proof
from conferral.domain.pdf_attachment import AttachmentRefused, attach

Keys = Mapping[str, bytes]
"""Public keys of an issuer by their verification methods."""


def judge_files(row: Any, stored: bytes | None, final: bytes | None) -> Iterator[Deviation]:
    """A3: bytes match their digests; the PDF begins with the signed one and carries exactly this document.

    Args:
        row: a credential, or an earlier revision of one with the columns of a credential.
        stored: the file that `vc_sha256` names; None when it is missing, which A14 says.
        final: the file that `pdf_sha256` names; None when it is missing.
    """
    is_document = stored is not None and hashlib.sha256(stored).hexdigest() == row.vc_sha256
    is_pdf = final is not None and hashlib.sha256(final).hexdigest() == row.pdf_sha256
    if stored is not None and not is_document:
        yield _found("A3", row, "its stored document is not the recorded one")
    if final is not None and not is_pdf:
        yield _found("A3", row, "its stored PDF is not the recorded one")
    if stored is not None and is_document:
        yield from _judge_document(row, stored)
    if final is not None and is_pdf:
        base = final[: row.base_length]
        if hashlib.sha384(base).digest() != row.base_sha384:
            yield _found("A3", row, "its PDF does not begin with the recorded pages")
        elif stored is not None and is_document:
            yield from _judge_binding(row, stored, final)


def judge_signature(row: Any, stored: bytes, keys: Keys) -> Iterator[Deviation]:
    """A4: the recorded document is signed by a key of its issuer, the recorded one.

    Args:
        row: as for `judge_files`.
        stored: the file that `vc_sha256` names; other bytes are A3's and not judged here.
        keys: every key of the issuer, withdrawn ones, too.
    """
    if hashlib.sha256(stored).hexdigest() != row.vc_sha256:
        return
    try:
        document = read_document(stored)
        method = str(read_proof(document)["verificationMethod"])
        if method != row.verification_method:
            yield _found("A4", row, "names another key than its row")
        elif method not in keys:
            yield _found("A4", row, f"names a key that its issuer never had: {method}")
        else:
            check_proof(document, keys[method])
    except (UnsafeDocument, ProofRefused) as refused:
        yield _found("A4", row, f"{refused}")


def _judge_document(row: Any, stored: bytes) -> Iterator[Deviation]:
    try:
        document = read_document(stored)
    except UnsafeDocument as unsafe:
        yield _found("A3", row, f"its stored document cannot be read: {unsafe}")
        return
    if document.get("id") != row.vc_id:
        yield _found("A3", row, "its stored document has another id")
    status = document.get("credentialStatus")
    named = status.get("statusListIndex") if isinstance(status, dict) else None
    if named != str(row.status_index):
        yield _found("A3", row, "its stored document names another place in the status list")
    if not _names_pages(document, row.base_sha384):
        yield _found("A3", row, "its stored document names other pages than the recorded ones")


def _names_pages(document: Mapping[str, Any], base_sha384: bytes) -> bool:
    resources = document.get("relatedResource")
    wanted = "sha384-" + base64.b64encode(base_sha384).decode("ascii")
    listed = resources if isinstance(resources, list) else [resources]
    return any(isinstance(one, dict) and one.get("digestSRI") == wanted for one in listed)


def _judge_binding(row: Any, stored: bytes, final: bytes) -> Iterator[Deviation]:
    try:
        created = datetime.fromisoformat(str(read_proof(read_document(stored)).get("created")))
        is_made_of = attach(final[: row.base_length], stored, created) == final
    except (UnsafeDocument, ProofRefused, AttachmentRefused, ValueError) as refused:
        yield _found("A3", row, f"its document cannot be attached to its pages: {refused}")
        return
    if not is_made_of:
        yield _found("A3", row, "its PDF is not made of its pages and its document")


def _found(check: str, row: Any, text: str) -> Deviation:
    return Deviation(check, row.id, text, key=row.id)
