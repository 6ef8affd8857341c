# SPDX-License-Identifier: Apache-2.0
"""Make the bytes of one credential: the PDF, the signed document, and the one inside the other.

Everything here is repeatable: the same row gives the same bytes, in any process, on any day.
Nothing here moves a state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from conferral.adapters import design_store
from conferral.adapters.qr import qr_svg
from conferral.domain import data_integrity, vc
from conferral.domain.identity import identity_hash
from conferral.domain.pdf_attachment import AttachmentRefused, attach
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.services import signing_keys
from conferral.services.runtime import Runtime
from conferral.store.records import Record


@dataclass(frozen=True, slots=True)
class Made:
    """The three files of a credential, and the key it was signed with.

    Attributes:
        base: the PDF that the signed document names by its SHA-384.
        signed: the signed document in its stored form.
        final: `base` followed by one update that attaches `signed`.
    """

    base: bytes
    signed: bytes
    final: bytes
    verification_method: str

    def evidence(self) -> dict[str, Any]:
        """Return what the timeline shows of the attempt."""
        return {"bytes": len(self.final), "verification_method": self.verification_method}


def make(rt: Runtime, work: Record) -> Made:
    """Render, sign and attach.

    Raises:
        Retryable: the renderer or the signing key is not available.
        Permanent: `text_unprintable`, `template_invalid`, `credential_data_invalid`.
    """
    issuer = signing_keys.issuer(rt, work.organisation_id, work.mode)
    base = _render(rt, work)
    crash_point("pdf.rendered")
    signed = _sign(rt, work, issuer, base)
    crash_point("vc.signed")
    try:
        final = attach(base, signed, work.created_at)
    except AttachmentRefused as refused:
        raise Permanent("template_invalid", f"template {work.template_id}: {refused}") from None
    return Made(base, signed, final, issuer.verification_method)


def store(rt: Runtime, made: Made) -> dict[str, Any]:
    """Store the final PDF and the signed document; return the columns that name them."""
    pdf_sha256 = rt.blobs.put(made.final)
    crash_point("pdf.stored")
    vc_sha256 = rt.blobs.put(made.signed)
    crash_point("vc.stored")
    return {
        "base_sha384": hashlib.sha384(made.base).digest(),
        "base_length": len(made.base),
        "pdf_sha256": pdf_sha256,
        "vc_sha256": vc_sha256,
        "verification_method": made.verification_method,
        "engine": rt.renderer.engine,
        "fonts_sha256": rt.fonts.sha256,
    }


def _render(rt: Runtime, work: Record) -> bytes:
    version, data = document(rt, work)
    return rt.renderer.render(version, data, timestamp=int(work.created_at.timestamp())).content


def document(rt: Runtime, work: Record) -> tuple[str, dict[str, Any]]:
    """Return what a credential is drawn from: its template version on this host, and its data."""
    version = work.design_version
    if not (rt.templates_folder / version).is_dir():
        # First use on this host. After an upgrade of the package the old source may be gone;
        # then the design as it is now is used: nobody has seen a PDF of this credential yet.
        version = design_store.materialise(rt.templates_folder, work.design, work.theme)
    verification_url = rt.url(f"/c/{work.token}")
    return version, {
        "credential": {
            "id": work.id,
            "recipient_name": work.recipient_name,
            "issued_on": work.issued_on.isoformat(),
            "expires_on": work.expires_on.isoformat() if work.expires_on else None,
            "verification_url": verification_url,
            "organisation_name": work.organisation_name,
            "description": work.description,
            **work.fields,
        },
        "qr": qr_svg(verification_url),
        "test_mode": work.mode == "test",
        "language": work.recipient_locale,
    }


def _sign(rt: Runtime, work: Record, issuer: signing_keys.Issuer, base: bytes) -> bytes:
    try:
        document = vc.build(_content(rt, work, issuer, base))
        options = vc.proof_options(
            data_integrity.EDDSA_RDFC,
            verification_method=issuer.verification_method,
            created=vc.timestamp(work.created_at),
            document=document,
        )
        hashed = vc.hash_to_sign(document, options, canonicalise=rt.signing_shapes.nquads)
    except ValueError as invalid:
        raise Permanent("credential_data_invalid", f"credential {work.id}: {invalid}") from None
    signed = vc.add_proof(document, options, issuer.sign(hashed))
    # A wrong key never leaves the house: check with what the world will check with. The hash is the one that
    # was signed; making it again would say the same. That it is right is what the shapes' checks are for.
    try:
        data_integrity.check_hashed(signed, hashed, issuer.public_key)
    except data_integrity.ProofRefused as refused:
        raise Permanent("signing_key_revoked", f"a signature of {issuer.did}: {refused}") from None
    return vc.stored_form(signed)


def _content(rt: Runtime, work: Record, issuer: signing_keys.Issuer, base: bytes) -> vc.CredentialContent:
    return vc.CredentialContent(
        vc_id=work.vc_id,
        token=work.token,
        issuer_did=issuer.did,
        issuer_name=work.organisation_name,
        issuer_url=work.organisation_url,
        valid_from=vc.first_moment(work.issued_on),
        valid_until=vc.last_moment(work.expires_on) if work.expires_on else None,
        recipient_name=work.recipient_name,
        email_salt=work.salt,
        email_hash=identity_hash(work.recipient_email, work.salt),
        achievement_id=work.achievement_id,
        achievement_name=work.fields.get("course", work.template_name),
        achievement_description=work.description,
        achievement_criteria=work.criteria,
        pdf_url=rt.url(f"/c/{work.token}/base.pdf"),
        pdf_sha384=hashlib.sha384(base).digest(),
        status_list_url=rt.url(f"/status/{work.status_list_number}"),
        status_list_index=work.status_index,
        status_purpose=work.status_purpose,
        created=work.created_at,
        verification_method=issuer.verification_method,
    )
