# SPDX-License-Identifier: Apache-2.0
"""Who signs: DIDs, keys as text, and the issuer's DID document.

did:key where no public host stands behind the issuer (and always in test mode), did:web where one does.
This room encodes and reads; it must never resolve anything over the network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE = {character: value for value, character in enumerate(BASE58)}

ED25519_PUBLIC = b"\xed\x01"
"""Multicodec prefix of an Ed25519 public key."""
PUBLIC_KEY_BYTES = 32
MAX_BASE58_CHARACTERS = 128
"""Longest base58 text we decode: a signature has 88 characters, and decoding is quadratic."""
MAX_KEYS = 256
"""Keys read from one DID document; a key a month is 20 years."""

DID_CONTEXTS = ("https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1")


class MalformedKey(ValueError):
    """The text is not a key, a DID or a DID document that we read."""


@dataclass(frozen=True)
class PublishedKey:
    """One public key of an issuer: its number (k1, k2, ...) and its 32 bytes."""

    number: int
    public_key: bytes


def base58btc(data: bytes) -> str:
    """Encode in base58btc without multibase prefix; every leading zero byte becomes a `1`."""
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + base58_number(int.from_bytes(data, "big"))


def base58_number(number: int) -> str:
    """Encode a whole number in base58btc digits; zero is the empty text."""
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return digits


def from_base58btc(text: str) -> bytes:
    """Decode base58btc of at most `MAX_BASE58_CHARACTERS`.

    Raises:
        MalformedKey: too long, or a character outside the alphabet.
    """
    if len(text) > MAX_BASE58_CHARACTERS or not all(character in _BASE58_VALUE for character in text):
        raise MalformedKey("the text is not base58btc")
    number = 0
    for character in text:
        number = number * 58 + _BASE58_VALUE[character]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def multikey(public_key: bytes) -> str:
    """Write an Ed25519 public key as `publicKeyMultibase`: `z6Mk…`."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise MalformedKey("an Ed25519 public key has 32 bytes")
    return "z" + base58btc(ED25519_PUBLIC + public_key)


def public_key_of(text: str) -> bytes:
    """Read an Ed25519 public key from `publicKeyMultibase`.

    Raises:
        MalformedKey: not base58btc, or a key of another kind.
    """
    decoded = from_base58btc(text[1:]) if text.startswith("z") else b""
    if len(decoded) != len(ED25519_PUBLIC) + PUBLIC_KEY_BYTES or not decoded.startswith(ED25519_PUBLIC):
        raise MalformedKey("the key is not an Ed25519 public key in base58btc")
    return decoded[len(ED25519_PUBLIC) :]


def did_key(public_key: bytes) -> str:
    """Return the did:key of an Ed25519 public key."""
    return "did:key:" + multikey(public_key)


def public_key_of_did_key(did: str) -> bytes:
    """Return the key that a did:key is, with or without its fragment.

    Raises:
        MalformedKey: no did:key of Ed25519, or a fragment that names another key.
    """
    bare, _, fragment = did.partition("#")
    if not bare.startswith("did:key:"):
        raise MalformedKey("the DID is not a did:key")
    key_text = bare.removeprefix("did:key:")
    if fragment and fragment != key_text:
        raise MalformedKey("the fragment of a did:key repeats its key")
    return public_key_of(key_text)


def did_web(public_url: str, slug: str) -> str:
    """Return the did:web of an organisation below a public URL; its port is written `%3A`."""
    parts = urlsplit(public_url)
    host = parts.hostname or ""
    port = f"%3A{parts.port}" if parts.port else ""
    segments = [quote(segment, safe="") for segment in parts.path.split("/") if segment]
    return ":".join(["did:web", host + port, *segments, "issuers", slug])


def did_document_url(did: str) -> str:
    """Return where a did:web keeps its document (did:web method, "Read").

    Raises:
        MalformedKey: another method.
    """
    method, _, rest = did.partition("#")[0].partition("did:web:")
    if method or not rest:
        raise MalformedKey("the DID is not a did:web")
    host, *segments = rest.split(":")
    path = "/".join(segments) or ".well-known"
    return f"https://{unquote(host)}/{path}/did.json"


def has_real_host(public_url: str) -> bool:
    """Tell whether strangers can resolve did:web at this URL: https, and a name with a dot, no address."""
    parts = urlsplit(public_url)
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme != "https" or "." not in host or host.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def issuer_did(public_url: str, slug: str, public_key: bytes, mode: str) -> str:
    """Choose the DID that an organisation signs with; it is frozen by the first signature.

    Args:
        public_url: where this deployment is reached.
        slug: the organisation's name in URLs.
        public_key: its first Ed25519 key, 32 bytes.
        mode: `live` or `test`; test is always did:key, so that it never looks like live.
    """
    if mode == "live" and has_real_host(public_url):
        return did_web(public_url, slug)
    return did_key(public_key)


def verification_method(did: str, key: PublishedKey) -> str:
    """Return the URL that a proof names its key by: `did:web:…#k1`, or the did:key with its own fragment."""
    if did.startswith("did:key:"):
        return f"{did}#{did.removeprefix('did:key:')}"
    return f"{did}#k{key.number}"


def did_document(did: str, keys: Sequence[PublishedKey]) -> dict[str, Any]:
    """Build the DID document of an issuer.

    Args:
        did: the issuer.
        keys: every key that ever signed and was not compromised: removing a rotated key here would make
            its credentials invalid everywhere.
    """
    methods = [
        {
            "id": verification_method(did, key),
            "type": "Multikey",
            "controller": did,
            "publicKeyMultibase": multikey(key.public_key),
        }
        for key in keys
    ]
    return {
        "@context": list(DID_CONTEXTS),
        "id": did,
        "verificationMethod": methods,
        "assertionMethod": [method["id"] for method in methods],
    }


def assertion_keys(document: Mapping[str, Any]) -> dict[str, bytes]:
    """Read the keys a DID document allows for assertions, by the URL of their verification method.

    Keys of other kinds are skipped: a document may publish what we do not verify.

    Raises:
        MalformedKey: not a DID document, or a key whose controller is somebody else.
    """
    did = document.get("id")
    methods = document.get("verificationMethod", [])
    allowed = document.get("assertionMethod", [])
    if not isinstance(did, str) or not isinstance(methods, list) or not isinstance(allowed, list):
        raise MalformedKey("the file is not a DID document")
    if len(methods) + len(allowed) > 2 * MAX_KEYS:
        raise MalformedKey(f"the DID document holds more than {MAX_KEYS} keys")
    by_id = {method.get("id"): method for method in methods if isinstance(method, dict)}
    keys: dict[str, bytes] = {}
    for entry in allowed:
        method = by_id.get(entry) if isinstance(entry, str) else entry
        found = _multikey_of(method, did)
        if found is not None:
            keys[found[0]] = found[1]
    return keys


def _multikey_of(method: object, did: str) -> tuple[str, bytes] | None:
    if not isinstance(method, dict) or method.get("type") != "Multikey":
        return None
    identifier = method.get("id")
    if method.get("controller") != did or not isinstance(identifier, str):
        raise MalformedKey("a key of the DID document is controlled by somebody else")
    absolute = did + identifier if identifier.startswith("#") else identifier
    if absolute.partition("#")[0] != did:
        raise MalformedKey("a key of the DID document is named after somebody else")
    try:
        return absolute, public_key_of(str(method.get("publicKeyMultibase", "")))
    except MalformedKey:
        return None
