# SPDX-License-Identifier: Apache-2.0
"""Data Integrity proofs with Ed25519: eddsa-rdfc-2022, and eddsa-jcs-2022 for verifying only.

W3C Data Integrity EdDSA Cryptosuites 1.0. What is signed is SHA-256 of the canonical proof options followed
by SHA-256 of the canonical document. The public key is handed in by the caller, who took it from our database
or from a resolved DID: this room must never take a key from the document it checks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from conferral.domain.canonical import (
    VC_V2,
    Document,
    UnsafeDocument,
    canonical_nquads,
    is_absolute_iri,
    jcs,
)
from conferral.domain.did import MalformedKey, from_base58btc

EDDSA_RDFC = "eddsa-rdfc-2022"
EDDSA_JCS = "eddsa-jcs-2022"

_SIGNATURE_BYTES = 64
_OPTIONS = frozenset({"type", "cryptosuite", "created", "verificationMethod", "proofPurpose"})
# What a proof may hold. An unknown member might be a condition that we would not check.
_PROOF_MEMBERS = _OPTIONS | {"proofValue", "@context", "id"}
ASSERTION = "assertionMethod"
AUTHENTICATION = "authentication"
"""The purpose of the proof of a presentation: its holder answers a verifier's challenge."""
# What a proof may hold beside that; the signature covers it, and whoever asked compares it with his question.
_MEMBERS_OF_PURPOSE = {ASSERTION: _PROOF_MEMBERS, AUTHENTICATION: _PROOF_MEMBERS | {"challenge", "domain"}}
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})")
_RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
_SECURITY = "https://w3id.org/security#"
_XSD_DATE_TIME = "http://www.w3.org/2001/XMLSchema#dateTime"


class ProofRefused(ValueError):
    """The proof does not show that this key signed this document; the message says why."""


def proof_options(
    cryptosuite: str, *, verification_method: str, created: str, document: Mapping[str, Any]
) -> Document:
    """Return the proof configuration that is hashed with a document, its `@context` included."""
    return {
        "@context": document["@context"],
        "type": "DataIntegrityProof",
        "cryptosuite": cryptosuite,
        "created": created,
        "verificationMethod": verification_method,
        "proofPurpose": "assertionMethod",
    }


def hash_to_sign(
    document: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    contexts: Mapping[str, Document] | None = None,
    canonicalise: Callable[[Mapping[str, Any]], bytes] | None = None,
) -> bytes:
    """Return the 64 bytes that are signed under the options' cryptosuite.

    Args:
        document: without its proof.
        options: the proof without its value, with the `@context` it is read in.
        contexts: see `canonical_nquads`.
        canonicalise: writes the document's N-Quads in place of `canonical_nquads`, byte for byte.

    Raises:
        UnsafeDocument: something would not be covered.
    """
    if options["cryptosuite"] == EDDSA_JCS:
        return hashlib.sha256(jcs(options)).digest() + hashlib.sha256(jcs(document)).digest()
    quads = _options_nquads(options)
    if quads is None:
        quads = canonical_nquads(options, contexts=contexts)
    if canonicalise is not None:
        document_quads = canonicalise(document)
    else:
        document_quads = canonical_nquads(document, contexts=contexts)
    return hashlib.sha256(quads).digest() + hashlib.sha256(document_quads).digest()


def verify_proof(
    document: Mapping[str, Any], public_key: bytes, *, contexts: Mapping[str, Document] | None = None
) -> bool:
    """Tell whether a document carries a sound proof by this key; see `check_proof` for the reason."""
    try:
        check_proof(document, public_key, contexts=contexts)
    except ProofRefused:
        return False
    return True


def check_proof(
    document: Mapping[str, Any],
    public_key: bytes,
    *,
    purpose: str = ASSERTION,
    contexts: Mapping[str, Document] | None = None,
) -> None:
    """Check one proof: suite allow-listed, purpose as asked, contexts and terms known, signature true.

    Args:
        document: signed, with one proof object.
        public_key: 32 bytes, from a source the caller trusts.
        purpose: what the proof must have been made for.
        contexts: see `canonical_nquads`.

    Raises:
        ProofRefused: any of these does not hold.
    """
    proof = read_proof(document, purpose=purpose)
    unsigned = {key: value for key, value in document.items() if key != "proof"}
    options = {key: value for key, value in proof.items() if key != "proofValue"}
    try:
        if proof["cryptosuite"] == EDDSA_JCS:
            # JCS covers every byte, but terms nobody defined mean nothing to anybody: refused alike.
            canonical_nquads(unsigned, contexts=contexts)
            unsigned = _in_context_of_proof(unsigned, options)
        else:
            options = _in_context_of_document(unsigned, options)
        signed = hash_to_sign(unsigned, options, contexts=contexts)
    except UnsafeDocument as unsafe:
        raise ProofRefused(unsafe.reason) from None
    _check_signature(proof, signed, public_key)


def check_hashed(document: Mapping[str, Any], hashed: bytes, public_key: bytes) -> None:
    """Check the proof of a document that the caller hashed itself, right before it was signed.

    For what we have just signed: form of the proof, value and key, but not the canonicalisation again. A
    document from anywhere else goes through `check_proof`.

    Args:
        document: signed, with one proof object.
        hashed: what `hash_to_sign` returned for exactly this document and proof.
        public_key: 32 bytes, the published one.

    Raises:
        ProofRefused: the proof is malformed, or its value is not this key's signature over `hashed`.
    """
    _check_signature(read_proof(document), hashed, public_key)


def _check_signature(proof: Mapping[str, Any], signed: bytes, public_key: bytes) -> None:
    try:
        signature = from_base58btc(proof["proofValue"][1:])
        if len(signature) != _SIGNATURE_BYTES:
            raise ProofRefused("the proof value is not an Ed25519 signature")
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except MalformedKey:
        raise ProofRefused("the proof value is not base58btc") from None
    except (InvalidSignature, ValueError):
        raise ProofRefused("the signature is not this key's over this content") from None


def read_proof(document: Mapping[str, Any], *, purpose: str = ASSERTION) -> dict[str, Any]:
    """Return the one proof of a document, its shape checked.

    Raises:
        ProofRefused: none, several, of another type, suite or purpose, or with members we do not check.
    """
    proof = document.get("proof")
    if not isinstance(proof, dict):
        raise ProofRefused("the document does not carry exactly one proof")
    if proof.get("type") != "DataIntegrityProof" or proof.get("cryptosuite") not in (EDDSA_RDFC, EDDSA_JCS):
        raise ProofRefused("the proof is of a type or cryptosuite that is not accepted")
    if proof.get("proofPurpose") != purpose:
        raise ProofRefused("the proof was made for another purpose")
    if not proof.keys() <= _MEMBERS_OF_PURPOSE[purpose]:
        raise ProofRefused("the proof holds a member that is not understood")
    if not is_absolute_iri(proof.get("verificationMethod")):
        raise ProofRefused("the proof does not name its key")
    created = proof.get("created", "2000-01-01T00:00:00Z")
    if not isinstance(created, str) or not _TIMESTAMP.fullmatch(created):
        raise ProofRefused("the proof's time is malformed")
    value = proof.get("proofValue")
    if not isinstance(value, str) or not value.startswith("z"):
        raise ProofRefused("the proof has no value in base58btc")
    return proof


def _in_context_of_document(unsigned: Document, options: Document) -> Document:
    named = unsigned.get("@context")
    if options.get("@context", named) != named:
        raise ProofRefused("the proof is read in another context than the document")
    return {**options, "@context": named}


def _in_context_of_proof(unsigned: Document, options: Document) -> Document:
    """Eddsa-jcs-2022: the proof's contexts, if it has any, must begin the document's."""
    if "@context" not in options:
        return unsigned
    outer, inner = (
        named if isinstance(named, list) else [named] for named in (unsigned["@context"], options["@context"])
    )
    if outer[: len(inner)] != inner:
        raise ProofRefused("the proof is read in another context than the document")
    return {**unsigned, "@context": options["@context"]}


def _options_nquads(options: Mapping[str, Any]) -> bytes | None:
    """Write the usual proof configuration as its five canonical statements.

    Sparing the JSON-LD machinery here makes signing 1.6 times as fast; anything unusual goes the plain way.
    """
    named = options.get("@context")
    if not isinstance(named, list) or named[:1] != [VC_V2] or options.keys() - {"@context"} != _OPTIONS:
        return None
    created, method, suite = (options[key] for key in ("created", "verificationMethod", "cryptosuite"))
    if suite != EDDSA_RDFC or options["type"] != "DataIntegrityProof":
        return None
    if not isinstance(created, str) or not _TIMESTAMP.fullmatch(created) or not is_absolute_iri(method):
        return None
    lines = (
        f'_:c14n0 <http://purl.org/dc/terms/created> "{created}"^^<{_XSD_DATE_TIME}> .\n',
        f"_:c14n0 <{_RDF_TYPE}> <{_SECURITY}DataIntegrityProof> .\n",
        f'_:c14n0 <{_SECURITY}cryptosuite> "{suite}"^^<{_SECURITY}cryptosuiteString> .\n',
        f"_:c14n0 <{_SECURITY}proofPurpose> <{_SECURITY}assertionMethod> .\n",
        f"_:c14n0 <{_SECURITY}verificationMethod> <{method}> .\n",
    )
    return "".join(lines).encode("utf-8")
