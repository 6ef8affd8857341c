# SPDX-License-Identifier: Apache-2.0
"""Verify what other software sends: credentials and presentations of any issuer whose key can be had.

Ours are judged by our records, as everywhere. Of others, did:key is its own key; a did:web of somebody else
is not looked up, so nothing is said about it. What cannot be told is never verified.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from conferral.adapters import document_checker
from conferral.adapters.brought_file import Material
from conferral.domain import canonical, credential_checks, data_integrity, verification
from conferral.domain.offline_check import Brought
from conferral.domain.problems import Problem
from conferral.domain.verification import Check, Finding, Verdict
from conferral.services import verifying, verifying_uploads
from conferral.services.runtime import Runtime

MOST_PRESENTED: Final = 8  # credentials of one presentation: each may cost a child
_V1: Final = canonical.VC_V1
_V2: Final = canonical.VC_V2


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found; `verified` only when every check is true."""

    checks: tuple[Check, ...]

    @property
    def verified(self) -> bool:
        """Whether nothing is false and nothing is untold; a log proof is not asked for."""
        return bool(self.checks) and all(check.ok for check in self.checks if check.id != "anchor")


def credential(rt: Runtime, document: dict[str, Any]) -> Verification:
    """Verify one credential: shape, signature, issuer, status, period, digests of what it names at ours.

    Raises:
        Problem: `temporary_reduced_capacity`.
    """
    if problem := next(_shape_problems(document), ""):
        return Verification((Check("shape", ok=False, detail=problem),))
    content = json.dumps(document).encode()
    ours = verifying_uploads.judged(rt, Material(content, Brought(content)))
    if ours is not None:
        checks = ours.judgement.checks
        if ours.judgement.verdict is Verdict.UNKNOWN:
            checks = (*checks, Check("record", ok=False, detail="there is no record of it"))
        if not checks[0].ok:
            return Verification(checks)
        return Verification((*checks, *_resources(rt, document)))
    keys = credential_checks.did_key_keys(document)
    signature = _signature(content, keys)
    if not signature.ok:
        return Verification((Check("signature", signature.ok, signature.detail),))
    return Verification((_check("signature", signature), *_foreign_checks(rt, document, list(keys))))


def presentation(rt: Runtime, document: dict[str, Any], *, challenge: str, domain: str) -> Verification:
    """Verify a presentation: its own proof, for this challenge and domain, and each credential in it.

    Args:
        rt: the runtime.
        document: the presentation.
        challenge: what its holder was asked to sign; empty when nothing was asked.
        domain: for whom; empty when not asked.

    Raises:
        Problem: `temporary_reduced_capacity`.
    """
    presented = _presented(document)
    if presented is None:
        detail = f"it is no presentation of 1 to {MOST_PRESENTED} credentials"
        return Verification((Check("shape", ok=False, detail=detail),))
    purpose = data_integrity.AUTHENTICATION
    keys = credential_checks.did_key_keys(document, purpose=purpose)
    method = credential_checks.method_of(document, purpose=purpose)
    signature = _signature(json.dumps(document).encode(), keys, purpose=purpose)
    checks = [_check("presentation", signature)]
    if not signature.ok:
        return Verification(tuple(checks))
    checks += _holder_checks(document, method.partition("#")[0], challenge, domain)
    for number, one in enumerate(presented):
        found = credential(rt, one)
        checks += [
            Check(f"credentials/{number}/{check.id}", check.ok, check.detail)
            for check in found.checks
            if check.id != "anchor"
        ]
    return Verification(tuple(checks))


def _holder_checks(document: dict[str, Any], signer: str, challenge: str, domain: str) -> list[Check]:
    holder = document.get("holder", signer)
    holder = holder.get("id") if isinstance(holder, dict) else holder
    proof = document["proof"]
    return [
        Check("holder", holder == signer, f"signed by {signer}"),
        Check("challenge", proof.get("challenge", "") == challenge, "it answers the challenge"),
        Check("domain", proof.get("domain", "") == domain, "it is made for this domain"),
    ]


def _foreign_checks(rt: Runtime, document: dict[str, Any], methods: list[str]) -> Iterator[Check]:
    yield _check("issuer", credential_checks.check_issuer(document, methods))
    if document.get("credentialStatus") is None:
        yield Check("status", ok=True, detail="the issuer keeps no status")
    else:
        yield Check("status", ok=None, detail="the status list of another issuer is not fetched")
    try:
        begins, ends = credential_checks.validity_of(document)
    except canonical.UnsafeDocument as unsafe:
        yield Check("validity", ok=False, detail=unsafe.reason)
        return
    now = rt.database.now()
    is_within = (begins is None or begins <= now) and (ends is None or now <= ends)
    yield Check("validity", is_within, "within its period" if is_within else "outside of its period")
    yield from _resources(rt, document)


def _resources(rt: Runtime, document: dict[str, Any]) -> Iterator[Check]:
    """Compare the digests of related resources that lie here; others are not fetched, and not judged."""
    resources = document.get("relatedResource", [])
    for resource in resources if isinstance(resources, list) else [resources]:
        address = str(resource.get("id", "")) if isinstance(resource, dict) else ""
        token, _, name = address.removeprefix(rt.url("/c/")).partition("/")
        if not address.startswith(rt.url("/c/")) or name != "base.pdf":
            continue
        content = verifying.base_pdf(rt, token)
        is_same = content is not None and _digest_of(content) == resource.get("digestSRI")
        yield Check("relatedResource", is_same, f"{name} is compared with the signed digest")


def _digest_of(content: bytes) -> str:
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


def _signature(content: bytes, keys: credential_checks.Keys, *, purpose: str | None = None) -> Finding:
    try:
        found = document_checker.check_signature(content, keys, purpose=purpose)
    except document_checker.NotChecked:
        raise Problem("temporary_reduced_capacity", "too much is being verified; come back soon") from None
    if found.ok is None:
        return verification.untold("the key of this issuer is not known here and is not looked up")
    return found


def _presented(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the credentials of a presentation; None when it is none."""
    types = document.get("type")
    if "VerifiablePresentation" not in (types if isinstance(types, list) else [types]):
        return None
    value = document.get("verifiableCredential", [])
    presented = value if isinstance(value, list) else [value]
    if not 1 <= len(presented) <= MOST_PRESENTED or not all(isinstance(one, dict) for one in presented):
        return None
    return presented


def _shape_problems(document: dict[str, Any]) -> Iterator[str]:
    """Yield what VC Data Model 1.1 and 2.0 demand and a signature does not show."""
    contexts = document.get("@context")
    first = contexts[0] if isinstance(contexts, list) and contexts else None
    if first not in (_V1, _V2):
        yield "its first context is not that of VC Data Model 1.1 or 2.0"
    types = document.get("type")
    if "VerifiableCredential" not in (types if isinstance(types, list) else [types]):
        yield "it has not the type VerifiableCredential"
    if not document.get("credentialSubject") or not credential_checks.issuer_of(document):
        yield "it names no subject or no issuer"
    if first == _V1 and "issuanceDate" not in document:
        yield "a credential of 1.1 has an issuanceDate"


def _check(name: str, finding: Finding) -> Check:
    return Check(name, finding.ok, finding.detail)
