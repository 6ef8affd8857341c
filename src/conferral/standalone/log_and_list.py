# SPDX-License-Identifier: Apache-2.0
"""The transparency log (RFC 9162, C2SP tlog-proof) and the status list (Bitstring Status List 1.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from conferral.standalone.signatures import check_proof
from conferral.standalone.statements import Unsound, require

HASH_BYTES = 32
MOST_HASHES = 63
MOST_NOTE = 64 * 1024
LIST_BYTES = 16 * 1024  # the standard's least
MOST_LIST_BYTES = 4 * 1024 * 1024
DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
SIGNATURE_LINE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")


def read_vkey(text: str) -> tuple[str, bytes, bytes]:
    """Read a verifier key of a log: its name, the four bytes of its id, the key."""
    name, _, rest = text.strip().partition("+")
    identifier, _, encoded = rest.partition("+")
    raw = _base64(encoded)
    key_id = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if len(raw) != 1 + HASH_BYTES or raw[0] != 1 or key_id.hex() != identifier:
        raise Unsound("the text is not the key of a log")
    return name, key_id, raw[1:]


def check_log(proof: str, entry: bytes, vkeys: list[tuple[str, bytes, bytes]]) -> tuple[bool | None, str]:
    """Check that an entry stands in a log whose key is pinned: true, false, or null without such a key."""
    try:
        head, _, note = proof.partition("\n\n")
        title, number, *hashes = head.split("\n")
        index = number.removeprefix("index ")
        is_proof = title == "c2sp.org/tlog-proof@v1" and number.startswith("index ")
        require(is_proof and len(proof) <= MOST_NOTE, "the file is not a proof of a log")
        require(DECIMAL.fullmatch(index) is not None and len(hashes) <= MOST_HASHES, "the proof is malformed")
        origin, size, root = _checkpoint(note)
        signed = _is_signed(note, [key for key in vkeys if key[0] == origin])
        if not signed:
            return None, "the checkpoint is not signed by a log that is pinned"
        if not _is_included(entry, int(index), size, [_base64(one) for one in hashes], root):
            return False, "the proof does not lead from this credential to the checkpoint"
    except (Unsound, ValueError) as unsound:
        return False, str(unsound)
    return True, f"entry {index} of {size} in {origin}"


def check_status(
    document: dict[str, Any], status_list: dict[str, Any], keys: dict[str, bytes], now: datetime
) -> tuple[str, str]:
    """Return in_force, revoked, suspended or untold, and why."""
    try:
        entry = document["credentialStatus"]
        subject = status_list["credentialSubject"]
        named = status_list.get("id") == entry["statusListCredential"]
        require(named, "the status list is not the one that the credential names")
        same = subject["statusPurpose"] == entry["statusPurpose"]
        require(same, "the status list serves another purpose")
        is_signed = status_list["issuer"] == _issuer(document) and bool(check_proof(status_list, keys)[0])
        by_issuer = status_list["proof"]["verificationMethod"].partition("#")[0] == status_list["issuer"]
        require(is_signed and by_issuer, "the status list is not signed by the issuer")
        begins, ends = (datetime.fromisoformat(status_list[name]) for name in ("validFrom", "validUntil"))
        require(begins <= now <= ends, "the status list is not in date")
        bits = _unpacked(subject["encodedList"])
        index = int(entry["statusListIndex"])
        is_inside = DECIMAL.fullmatch(entry["statusListIndex"]) is not None and index < 8 * len(bits)
        require(is_inside, "the index lies outside of the list")
    except Unsound as unsound:
        return "untold", str(unsound)
    except (KeyError, TypeError, ValueError, AttributeError):
        return "untold", "the status list cannot be read"
    if not bits[index >> 3] & (0x80 >> (index & 7)):
        return "in_force", f"not withdrawn in the list of {status_list['validFrom']}"
    return ("suspended" if entry["statusPurpose"] == "suspension" else "revoked"), "the list says so"


def _issuer(document: dict[str, Any]) -> str:
    issuer = document.get("issuer")
    return str(issuer.get("id", "")) if isinstance(issuer, dict) else str(issuer or "")


def _unpacked(encoded: str) -> bytes:
    if not encoded.startswith("u") or len(encoded) > 2 * MOST_LIST_BYTES:
        raise Unsound("the status list is not in base64url")
    try:
        packed = base64.b64decode(encoded[1:] + "=" * (-len(encoded[1:]) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj(wbits=31)
        bits = unpacker.decompress(packed, MOST_LIST_BYTES + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise Unsound("the status list cannot be unpacked") from None
    if not unpacker.eof or not LIST_BYTES <= len(bits) <= MOST_LIST_BYTES:
        raise Unsound("the status list is too short, too long or cut off")
    return bits


def _checkpoint(note: str) -> tuple[str, int, bytes]:
    lines = note.partition("\n\n")[0].split("\n")
    if len(lines) < 3 or not all(lines) or not DECIMAL.fullmatch(lines[1]):  # noqa: PLR2004 - the standard's
        raise Unsound("the checkpoint is malformed")
    return lines[0], int(lines[1]), _base64(lines[2])


def _is_signed(note: str, vkeys: list[tuple[str, bytes, bytes]]) -> bool:
    text, separator, lines = note.rpartition("\n\n")
    is_signed = False
    for line in lines.removesuffix("\n").split("\n"):
        found = SIGNATURE_LINE.fullmatch(line)
        if not separator or found is None:
            raise Unsound("a signature of the checkpoint is malformed")
        raw = _base64(found[2])
        for name, key_id, key in vkeys:
            if (name, key_id) != (found[1], raw[:4]):
                continue
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(raw[4:], f"{text}\n".encode())
            except InvalidSignature:
                raise Unsound("the checkpoint carries a false signature of a pinned log") from None
            is_signed = True
    return is_signed


def _is_included(entry: bytes, index: int, size: int, hashes: list[bytes], root: bytes) -> bool:
    """Fold the proof upward (RFC 9162 2.1.3.2); exactly the right number of hashes is required."""
    if not 0 <= index < size or any(len(one) != HASH_BYTES for one in hashes):
        return False
    number, last, found = index, size - 1, hashlib.sha256(b"\0" + entry).digest()
    for sibling in hashes:
        if last == 0:
            return False
        if number & 1 or number == last:
            found = hashlib.sha256(b"\1" + sibling + found).digest()
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\1" + found + sibling).digest()
        number, last = number >> 1, last >> 1
    return last == 0 and found == root


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unsound("a base64 text is malformed") from None
    if base64.b64encode(raw).decode() != text:
        raise Unsound("a base64 text is not canonical")
    return raw
