# SPDX-License-Identifier: Apache-2.0
"""Keys and signatures: base58btc, DID documents, Data Integrity proofs with Ed25519.

A key that comes with a document proves only that somebody had it; whose key it is must be pinned.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from conferral.standalone.statements import (
    SECURITY,
    UNSIGNABLE,
    XSD,
    Unsound,
    canonical_json,
    canonical_statements,
)

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
ED25519_PREFIX = b"\xed\x01"
MOST_BASE58 = 128
SIGNATURE_BYTES = 64
PROOF_MEMBERS = {"type", "cryptosuite", "created", "verificationMethod", "proofPurpose"}
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})")
METHOD = re.compile(r"did:[^\s\x00-\x20<>\"{}|\\^`\x7f\ufeff]+")


def from_base58(text: str) -> bytes:
    """Decode base58btc of at most 128 characters."""
    if len(text) > MOST_BASE58 or not all(one in BASE58 for one in text):
        raise Unsound("a text is not base58btc")
    number = 0
    for one in text:
        number = number * 58 + BASE58.index(one)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def key_of(multibase: Any) -> bytes:
    """Read an Ed25519 key from `z6Mk…`."""
    raw = from_base58(multibase[1:]) if isinstance(multibase, str) and multibase.startswith("z") else b""
    if not raw.startswith(ED25519_PREFIX) or len(raw) != len(ED25519_PREFIX) + 32:
        raise Unsound("a key is not an Ed25519 key")
    return raw[len(ED25519_PREFIX) :]


def keys_of_did_document(document: dict[str, Any]) -> dict[str, bytes]:
    """Return the keys that a DID document allows for assertions, by the address of each."""
    did, methods, allowed = (document.get(name) for name in ("id", "verificationMethod", "assertionMethod"))
    if not isinstance(did, str) or not isinstance(methods, list) or not isinstance(allowed, list):
        raise Unsound("the file is not a DID document")
    keys = {}
    for method in methods:
        if (
            not isinstance(method, dict)
            or method.get("type") != "Multikey"
            or method.get("id") not in allowed
        ):
            continue
        if method.get("controller") != did or str(method["id"]).partition("#")[0] != did:
            raise Unsound("a key of the DID document belongs to somebody else")
        keys[str(method["id"])] = key_of(method.get("publicKeyMultibase"))
    return keys


def key_of_did_key(method: str) -> dict[str, bytes]:
    """Return the key that a did:key is; it shows who signed, and says nothing about who that is."""
    did, _, fragment = method.partition("#")
    if not did.startswith("did:key:") or fragment != did.removeprefix("did:key:"):
        return {}
    try:
        return {method: key_of(fragment)}
    except Unsound:
        return {}


def proof_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the one proof of a document, its shape checked."""
    proof = document.get("proof")
    if not isinstance(proof, dict) or proof.keys() != PROOF_MEMBERS | {"proofValue"}:
        raise Unsound("the document does not carry exactly one proof in the form of ours")
    if (proof["type"], proof["proofPurpose"]) != ("DataIntegrityProof", "assertionMethod"):
        raise Unsound("the proof is of another type or for another purpose")
    if proof["cryptosuite"] != "eddsa-rdfc-2022":
        raise Unsound("the proof is of a cryptosuite that this program does not check")
    texts = [proof[name] for name in ("created", "verificationMethod", "proofValue")]
    if not all(isinstance(one, str) and not UNSIGNABLE.search(one) for one in texts):
        raise Unsound("the proof is malformed")
    if not TIME.fullmatch(texts[0]) or not METHOD.fullmatch(texts[1]) or not texts[2].startswith("z"):
        raise Unsound("the proof is malformed")
    return proof


def check_proof(document: dict[str, Any], keys: dict[str, bytes]) -> tuple[bool | None, str]:
    """Check the signature with the key it names: true, false, or null when that key is not known."""
    try:
        proof = proof_of(document)
        method = proof["verificationMethod"]
        if method not in keys:
            return None, "the key that the proof names is not known"
        unsigned = {name: value for name, value in document.items() if name != "proof"}
        hashes = hashlib.sha256(_options(proof)).digest()
        hashes += hashlib.sha256(canonical_statements(unsigned)).digest()
        signature = from_base58(proof["proofValue"][1:])
        Ed25519PublicKey.from_public_bytes(keys[method]).verify(signature, hashes)
    except Unsound as unsound:
        return False, str(unsound)
    except (InvalidSignature, ValueError):
        return False, "the signature is not this key's over this content"
    return True, str(method)


def stored_form(document: dict[str, Any]) -> bytes:
    """Return the bytes whose digest stands in the log: the whole document in canonical JSON."""
    return canonical_json(document).encode("utf-8", "surrogatepass")


def _options(proof: dict[str, Any]) -> bytes:
    """Write the proof's own statements; there are always the same five."""
    rdf_type = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
    suite = f'"{proof["cryptosuite"]}"^^<{SECURITY}cryptosuiteString>'
    lines = (
        f'_:c14n0 <http://purl.org/dc/terms/created> "{proof["created"]}"^^<{XSD}dateTime> .\n',
        f"_:c14n0 <{rdf_type}> <{SECURITY}DataIntegrityProof> .\n",
        f"_:c14n0 <{SECURITY}cryptosuite> {suite} .\n",
        f"_:c14n0 <{SECURITY}proofPurpose> <{SECURITY}assertionMethod> .\n",
        f"_:c14n0 <{SECURITY}verificationMethod> <{proof['verificationMethod']}> .\n",
    )
    return "".join(lines).encode("utf-8")
