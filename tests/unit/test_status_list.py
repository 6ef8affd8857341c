# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import gzip
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conferral.domain import status_list
from conferral.domain.canonical import canonical_nquads
from conferral.domain.status_list import LIST_LENGTH, MalformedStatusList

SIGNED_AT = datetime(2026, 1, 1, 9, 0, 0, tzinfo=UTC)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, LIST_LENGTH - 1), max_size=40))
def test_exactly_the_given_bits_are_set(indices: set[int]) -> None:
    """The list says of each index what the rows said."""
    bits = status_list.decode_list(status_list.encode_list(indices))
    assert len(bits) == 16_384
    assert {index for index in range(LIST_LENGTH) if bits[index >> 3] & (0x80 >> (index & 7))} == indices
    assert all(status_list.is_set(bits, index) for index in indices)


def test_bit_0_is_the_left_most_one() -> None:
    """The order of bits that the standard fixes."""
    bits = status_list.decode_list(status_list.encode_list([0, 15]))
    assert bits[:2] == b"\x80\x01"


def test_the_empty_list_of_the_standard_unpacks_to_zeros() -> None:
    """The encodedList of the standard's own example is 16 KiB of zeros."""
    example = "uH4sIAAAAAAAAA-3BMQEAAADCoPVPbQwfoAAAAAAAAAAAAAAAAAAAAIC3AYbSVKsAQAAA"
    assert status_list.decode_list(example) == bytes(16_384)


def test_the_same_bits_give_the_same_text() -> None:
    """A list that did not change keeps its ETag."""
    encoded = status_list.encode_list([1, 5])
    assert encoded == status_list.encode_list([5, 1, 1])
    header = base64.urlsafe_b64decode(encoded[1:] + "=" * (-len(encoded[1:]) % 4))[:8]
    assert header[4:] == bytes(4), "gzip must carry no time"


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "z" + status_list.encode_list([])[1:],
        "u!!!!",
        "u" + base64.urlsafe_b64encode(b"not gzip").decode(),
        status_list.encode_list([])[:-8],
        "u" + base64.urlsafe_b64encode(gzip.compress(b"short", mtime=0)).decode().rstrip("="),
        "u" + base64.urlsafe_b64encode(gzip.compress(bytes(5 * 1024 * 1024), mtime=0)).decode().rstrip("="),
    ],
)
def test_a_broken_or_exploding_list_is_refused(encoded: str) -> None:
    """Nothing foreign is unpacked without a limit."""
    with pytest.raises(MalformedStatusList):
        status_list.decode_list(encoded)


@pytest.mark.parametrize("index", [-1, LIST_LENGTH])
def test_an_index_beyond_the_list_is_refused(index: int) -> None:
    """An index outside is an error, never a clear bit."""
    with pytest.raises(MalformedStatusList):
        status_list.is_set(bytes(16_384), index)
    with pytest.raises(MalformedStatusList):
        status_list.encode_list([index])
    with pytest.raises(MalformedStatusList):
        status_list.index_at(b"", index)


def test_the_credential_is_the_documented_one() -> None:
    """Shape, purpose and dates as verifiers want them, and nothing that a signature would not cover."""
    document = status_list.build(
        url="https://creds.example.org/status/7",
        issuer_did="did:web:creds.example.org:issuers:acme",
        purpose="suspension",
        set_indices=[3],
        signed_at=SIGNED_AT,
    )
    subject = document["credentialSubject"]
    assert document["validFrom"] == "2026-01-01T09:00:00Z"
    assert document["validUntil"] == "2026-01-08T09:00:00Z"
    assert subject["id"] == "https://creds.example.org/status/7#list"
    assert subject["statusPurpose"] == "suspension"
    assert subject["ttl"] == 300_000
    assert canonical_nquads(document)
    with pytest.raises(MalformedStatusList):
        status_list.build(
            url="https://e.org/1", issuer_did="did:x:y", purpose="both", set_indices=[], signed_at=SIGNED_AT
        )


def test_a_permutation_gives_every_index_once() -> None:
    """No two credentials of a list share an index, and the order tells nothing."""
    permutation = status_list.draw_permutation(random.Random(7))
    given_out = [status_list.index_at(permutation, position) for position in range(LIST_LENGTH)]
    assert sorted(given_out) == list(range(LIST_LENGTH))
    assert given_out[:50] != sorted(given_out[:50])
    assert len(permutation) == 4 * LIST_LENGTH


@pytest.mark.parametrize(
    "entry",
    [
        [{"type": "BitstringStatusListEntry"}],
        {"type": "StatusList2021Entry", "statusListIndex": "1", "statusListCredential": "https://e.org"},
        {"type": "BitstringStatusListEntry", "statusListIndex": 1, "statusListCredential": "https://e.org"},
        {
            "type": "BitstringStatusListEntry",
            "statusListIndex": "-1",
            "statusListCredential": "https://e.org",
        },
        {"type": "BitstringStatusListEntry", "statusListIndex": "٣", "statusListCredential": "https://e.org"},
        {"type": "BitstringStatusListEntry", "statusListIndex": "9" * 11, "statusListCredential": "x"},
        {"type": "BitstringStatusListEntry", "statusListIndex": "1"},
    ],
)
def test_an_entry_that_cannot_be_looked_up_is_refused(entry: object) -> None:
    """A status we do not understand never passes for a clear bit."""
    with pytest.raises(MalformedStatusList):
        status_list.status_entry({"credentialStatus": entry})
