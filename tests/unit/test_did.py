# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conferral.domain import did
from conferral.domain.did import MalformedKey, PublishedKey
from conferral.domain.identity import email_salt, identity_hash, is_identity_of
from conferral.domain.tokens import is_public_token, public_token

# From the W3C vectors for eddsa-rdfc-2022 (vc-di-eddsa, keyPair.json).
W3C_KEY = "z6MkrJVnaZkeFzdQyMZu1cgjg7k1pZZ6pvBQ7XJPt4swbTQ2"
PUBLIC_KEY = did.public_key_of(W3C_KEY)


@given(st.binary(max_size=64))
def test_base58_reads_back_what_it_wrote(data: bytes) -> None:
    """Encoding loses nothing, leading zeros included."""
    assert did.from_base58btc(did.base58btc(data)) == data


def test_base58_of_known_text() -> None:
    """The example of the base58 Internet draft (draft-msporny-base58-03)."""
    assert did.base58btc(b"Hello World!") == "2NEpo7TZRRrLZSi2U"
    assert did.base58btc(bytes.fromhex("0000287fb4cd")) == "11233QC4"


@pytest.mark.parametrize("text", ["0", "O", "I", "l", "é", "1" * 500])
def test_base58_refuses_what_is_outside_its_alphabet(text: str) -> None:
    """A long or foreign text costs no effort."""
    with pytest.raises(MalformedKey):
        did.from_base58btc(text)


def test_a_multikey_is_read_and_written() -> None:
    """The W3C vectors' key keeps its spelling."""
    assert did.multikey(PUBLIC_KEY) == W3C_KEY
    assert did.public_key_of_did_key(f"did:key:{W3C_KEY}#{W3C_KEY}") == PUBLIC_KEY


@pytest.mark.parametrize(
    "text", ["", "z", "m6Mk", "z6Mk", W3C_KEY[:-1], "z" + did.base58btc(b"\xe7\x01" + bytes(33))]
)
def test_another_kind_of_key_is_refused(text: str) -> None:
    """Only Ed25519 public keys pass."""
    with pytest.raises(MalformedKey):
        did.public_key_of(text)


def test_a_did_key_with_a_foreign_fragment_is_refused() -> None:
    """A did:key has one key: itself."""
    with pytest.raises(MalformedKey):
        did.public_key_of_did_key(f"did:key:{W3C_KEY}#k1")


@pytest.mark.parametrize(
    ("url", "mode", "expected"),
    [
        ("https://creds.example.org", "live", "did:web:creds.example.org:issuers:acme"),
        ("https://creds.example.org:8443/", "live", "did:web:creds.example.org%3A8443:issuers:acme"),
        ("https://example.org/badges", "live", "did:web:example.org:badges:issuers:acme"),
        ("https://creds.example.org", "test", f"did:key:{W3C_KEY}"),
        ("http://creds.example.org", "live", f"did:key:{W3C_KEY}"),
        ("https://localhost:8000", "live", f"did:key:{W3C_KEY}"),
        ("https://box.localhost", "live", f"did:key:{W3C_KEY}"),
        ("https://192.0.2.7", "live", f"did:key:{W3C_KEY}"),
        ("https://[2001:db8::1]", "live", f"did:key:{W3C_KEY}"),
    ],
)
def test_the_issuer_is_did_web_only_when_strangers_can_resolve_it(url: str, mode: str, expected: str) -> None:
    """Foreign verifiers must find the key; test mode never looks like live."""
    assert did.issuer_did(url, "acme", PUBLIC_KEY, mode) == expected


def test_a_did_web_says_where_its_document_is() -> None:
    """The port is decoded, the path appended (did:web method)."""
    found = did.did_document_url("did:web:creds.example.org%3A8443:issuers:acme#k1")
    assert found == "https://creds.example.org:8443/issuers/acme/did.json"
    assert did.did_document_url("did:web:example.org") == "https://example.org/.well-known/did.json"
    with pytest.raises(MalformedKey):
        did.did_document_url("did:key:z6Mk")


def test_all_published_keys_may_assert() -> None:
    """A rotated key stays in assertionMethod, or its credentials would become invalid."""
    name = "did:web:creds.example.org:issuers:acme"
    second = bytes(range(32))
    document = did.did_document(name, [PublishedKey(1, PUBLIC_KEY), PublishedKey(2, second)])
    assert document["assertionMethod"] == [f"{name}#k1", f"{name}#k2"]
    assert did.assertion_keys(document) == {f"{name}#k1": PUBLIC_KEY, f"{name}#k2": second}


def test_a_key_outside_assertion_method_is_not_read() -> None:
    """A withdrawn key verifies nothing, even if it is still listed."""
    document = did.did_document("did:web:example.org", [PublishedKey(1, PUBLIC_KEY)])
    document["assertionMethod"] = []
    assert did.assertion_keys(document) == {}


@pytest.mark.parametrize("field", ["controller", "id"])
def test_a_document_cannot_speak_for_somebody_else(field: str) -> None:
    """A key named after or controlled by another DID is refused."""
    document = did.did_document("did:web:example.org", [PublishedKey(1, PUBLIC_KEY)])
    document["verificationMethod"][0][field] = "did:web:other.example#k1"
    document["assertionMethod"] = [document["verificationMethod"][0]["id"]]
    with pytest.raises(MalformedKey):
        did.assertion_keys(document)


def test_the_identity_hash_is_the_one_of_the_specification() -> None:
    """The vector of Open Badges: a@example.com with the salt Kosher."""
    expected = "sha256$" + hashlib.sha256(b"a@example.comKosher").hexdigest()
    assert identity_hash("a@example.com", "Kosher") == expected
    assert expected.startswith("sha256$b5809d8a")
    assert expected.endswith("22ef399")


def test_one_address_has_one_hash_in_every_spelling() -> None:
    """Case, white space and Unicode composition do not change who somebody is."""
    salt = email_salt(bytes(16))
    assert identity_hash(" Zoe\u0301@Example.COM ", salt) == identity_hash("zo\u00e9@example.com", salt)
    assert is_identity_of("zoe\u0301@example.com", salt, identity_hash("zo\u00e9@example.com", salt))
    assert not is_identity_of("zoe@example.com", salt, identity_hash("zo\u00e9@example.com", salt))


@given(st.binary(min_size=16, max_size=16))
def test_every_token_has_one_length(data: bytes) -> None:
    """A token is 22 digits, whatever its bytes."""
    token = public_token(data)
    assert is_public_token(token)
    assert len(token) == 22


def test_distinct_bytes_give_distinct_tokens() -> None:
    """Padding joins nothing."""
    assert public_token(bytes(16)) == "1" * 22
    assert public_token(bytes(15) + b"\x01") == "1" * 21 + "2"
    assert len(public_token(b"\xff" * 16)) == 22
