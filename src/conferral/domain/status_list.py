# SPDX-License-Identifier: Apache-2.0
"""Bitstring Status List 1.0: one signed list of bits says which credentials are withdrawn or paused.

A list is always built anew from all set indices (a projection of rows): nobody ever reads, changes and writes
a bit string. Bit 0 is the left-most bit of byte 0. This room must never remember a list.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import random
import struct
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from conferral.domain.canonical import VC_V2, Document

LIST_LENGTH = 131_072
"""The standard's minimum, for herd privacy: 16 KiB of bits."""
LIST_BYTES = LIST_LENGTH // 8
MAX_FOREIGN_LIST_BYTES = 4 * 1024 * 1024
"""A foreign list is unpacked no further than this: 33 million credentials, and no decompression bomb."""
PURPOSES = ("revocation", "suspension")
VALID_DAYS = 7
"""A list that is not signed again within a week tells verifiers that the issuer is gone."""
TTL_MILLISECONDS = 300_000
"""How long a verifier may keep a copy; equals the max-age we serve."""
_INDEX_BYTES = 4
_MAX_INDEX_DIGITS = 10


class MalformedStatusList(ValueError):
    """The encoded list cannot be unpacked, or the index lies outside it."""


def encode_list(set_indices: Iterable[int]) -> str:
    """Return the `encodedList` of a list in which exactly these bits are set.

    The same indices give the same text: gzip carries no time.
    """
    bits = bytearray(LIST_BYTES)
    for index in set_indices:
        if not 0 <= index < LIST_LENGTH:
            raise MalformedStatusList("the index lies outside the list")
        bits[index >> 3] |= 0x80 >> (index & 7)
    packed = gzip.compress(bytes(bits), compresslevel=9, mtime=0)
    return "u" + base64.urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode_list(encoded: str) -> bytes:
    """Unpack an `encodedList` to its bytes.

    Raises:
        MalformedStatusList: not multibase base64url, not gzip, shorter than the standard's minimum or
            larger than we read.
    """
    if not encoded.startswith("u") or len(encoded) > 2 * MAX_FOREIGN_LIST_BYTES:
        raise MalformedStatusList("the list is not multibase base64url")
    try:
        packed = base64.b64decode(encoded[1:] + "=" * (-len(encoded[1:]) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj(wbits=31)
        bits = unpacker.decompress(packed, MAX_FOREIGN_LIST_BYTES + 1)
    except (binascii.Error, zlib.error, ValueError):
        raise MalformedStatusList("the list is not gzip in base64url") from None
    if not unpacker.eof or len(bits) > MAX_FOREIGN_LIST_BYTES:
        raise MalformedStatusList("the list is cut off or too large")
    if len(bits) < LIST_BYTES:
        raise MalformedStatusList("the list is shorter than the standard allows")
    return bits


def is_set(bits: bytes, index: int) -> bool:
    """Tell whether a bit is set.

    Raises:
        MalformedStatusList: the index lies outside the list.
    """
    if not 0 <= index < 8 * len(bits):
        raise MalformedStatusList("the index lies outside the list")
    return bool(bits[index >> 3] & (0x80 >> (index & 7)))


def build(
    *, url: str, issuer_did: str, purpose: str, set_indices: Iterable[int], signed_at: datetime
) -> Document:
    """Build the unsigned BitstringStatusListCredential; sign it with `vc.sign`.

    Args:
        url: where the list is served; also its id.
        issuer_did: the same DID as in the credentials of the list, or verifiers refuse it.
        purpose: one of `PURPOSES`.
        set_indices: every index whose bit is set.
        signed_at: aware UTC; the list is valid from then for `VALID_DAYS`.
    """
    if purpose not in PURPOSES:
        raise MalformedStatusList("the purpose is not revocation or suspension")
    return {
        "@context": [VC_V2],
        "id": url,
        "type": ["VerifiableCredential", "BitstringStatusListCredential"],
        "issuer": issuer_did,
        "validFrom": f"{signed_at:%Y-%m-%dT%H:%M:%SZ}",
        "validUntil": f"{signed_at + timedelta(days=VALID_DAYS):%Y-%m-%dT%H:%M:%SZ}",
        "credentialSubject": {
            "id": f"{url}#list",
            "type": "BitstringStatusList",
            "statusPurpose": purpose,
            "encodedList": encode_list(set_indices),
            "ttl": TTL_MILLISECONDS,
        },
    }


def draw_permutation(source: random.Random) -> bytes:
    """Draw the order in which a list's indices are given out, so that an index tells no date.

    Args:
        source: `random.SystemRandom()` outside of tests. Takes ~0.1 s: never inside a request.

    Returns:
        131,072 big-endian 32-bit numbers, each index once (512 KiB).
    """
    order = list(range(LIST_LENGTH))
    source.shuffle(order)
    return struct.pack(f">{LIST_LENGTH}I", *order)


def index_at(permutation: bytes, position: int) -> int:
    """Return the list index given to the credential that takes a position in the permutation."""
    if not 0 <= position < LIST_LENGTH:
        raise MalformedStatusList("the list is full")
    start = position * _INDEX_BYTES
    return int.from_bytes(permutation[start : start + _INDEX_BYTES], "big")


def status_entry(credential: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the status entry of a credential, or None when its issuer keeps no status.

    Raises:
        MalformedStatusList: an entry of another kind, or one we cannot look up.
    """
    entry = credential.get("credentialStatus")
    if entry is None:
        return None
    if not isinstance(entry, dict) or entry.get("type") != "BitstringStatusListEntry":
        raise MalformedStatusList("the status entry is of a kind that is not supported")
    index = entry.get("statusListIndex")
    if (
        not isinstance(index, str)
        or not index.isascii()
        or not index.isdigit()
        or len(index) > _MAX_INDEX_DIGITS
    ):
        raise MalformedStatusList("the status entry has no index")
    if not isinstance(entry.get("statusListCredential"), str):
        raise MalformedStatusList("the status entry names no list")
    return entry
