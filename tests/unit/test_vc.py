# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from conferral.domain import canonical, data_integrity, did, vc
from conferral.domain.canonical import UnsafeDocument
from conferral.domain.data_integrity import ProofRefused
from support import require, sample_credentials

EXAMPLES = {
    **canonical.CONTEXTS,
    # The W3C vectors use this context; it is never served outside of tests.
    "https://www.w3.org/ns/credentials/examples/v2": {
        "@context": {"@vocab": "https://www.w3.org/ns/credentials/examples#"}
    },
}
SUITES = [
    ("eddsa-rdfc-2022", "signedDataInt.json", "combinedHashDataInt.txt"),
    ("eddsa-jcs-2022", "signedJCS.json", "combinedHashJCS.txt"),
]


def _vectors(suite: str) -> Path:
    return require.test_data() / "vc-di-eddsa" / suite


@pytest.mark.parametrize(("suite", "signed_file", "hash_file"), SUITES)
def test_w3c_vectors_are_reproduced(suite: str, signed_file: str, hash_file: str) -> None:
    """Hash and signature of both EdDSA suites equal the W3C test vectors, and verify."""
    folder = _vectors(suite)
    signed = json.loads((folder / signed_file).read_text())
    pair = json.loads((folder.parent / "keyPair.json").read_text())
    options = {key: value for key, value in signed["proof"].items() if key != "proofValue"}
    options.setdefault("@context", signed["@context"])
    unsigned = {key: value for key, value in signed.items() if key != "proof"}
    hashed = data_integrity.hash_to_sign(unsigned, options, contexts=EXAMPLES)
    assert hashed.hex() == (folder / hash_file).read_text().strip()
    private = Ed25519PrivateKey.from_private_bytes(did.from_base58btc(pair["privateKeyMultibase"][1:])[2:])
    assert "z" + did.base58btc(private.sign(hashed)) == signed["proof"]["proofValue"]
    public = did.public_key_of(pair["publicKeyMultibase"])
    assert vc.verify_proof(signed, public, contexts=EXAMPLES)
    signed["name"] = "Another Credential"
    assert not vc.verify_proof(signed, public, contexts=EXAMPLES)


@pytest.mark.parametrize("issuer", [sample_credentials.web_issuer(), sample_credentials.key_issuer()])
def test_the_short_way_of_the_proof_options_is_the_plain_way(issuer: sample_credentials.Issuer) -> None:
    """The five statements written by hand are those that JSON-LD gives."""
    document = vc.build(sample_credentials.content(issuer))
    options = vc.proof_options(
        "eddsa-rdfc-2022",
        verification_method=issuer.method,
        created="2026-01-01T09:00:00Z",
        document=document,
    )
    assert data_integrity._options_nquads(options) == canonical.canonical_nquads(options)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"valid_until": None},
        {"issuer_url": None},
        {"subject_id": "did:example:holder"},
        {"status_purpose": "suspension"},
        {"recipient_name": "محمد «العربي» \u200fZoë \U0001d4b3"},
        {"achievement_criteria": 'Quote " backslash \\ line\nbreak'},
    ],
)
def test_what_we_issue_is_an_open_badge(changes: dict[str, Any]) -> None:
    """Every shape that we issue passes the Open Badges 3.0 JSON Schema and verifies."""
    schema = json.loads((require.test_data() / "ob_v3p0_achievementcredential_schema.json").read_text())
    issuer = sample_credentials.web_issuer()
    signed = sample_credentials.credential(issuer, **changes)
    jsonschema_rs.validate(schema, signed)
    assert vc.verify_proof(signed, issuer.signer.public_key)


def test_the_schema_would_notice_an_array_of_statuses() -> None:
    """The reason why credentialStatus is one object."""
    schema = json.loads((require.test_data() / "ob_v3p0_achievementcredential_schema.json").read_text())
    signed = sample_credentials.credential(sample_credentials.web_issuer())
    signed["credentialStatus"] = [signed["credentialStatus"]]
    assert not jsonschema_rs.is_valid(schema, signed)


def test_signing_twice_gives_the_same_bytes() -> None:
    """A second attempt of a run yields the same credential."""
    issuer = sample_credentials.web_issuer()
    content = sample_credentials.content(issuer)
    first, second = (vc.stored_form(issuer.sign(vc.build(content))) for _ in range(2))
    assert first == second
    assert canonical.read_document(first)["id"] == content.vc_id


def test_the_document_is_the_documented_one() -> None:
    """The exact members of the format page, in the forms that verifiers want."""
    issuer = sample_credentials.web_issuer()
    signed = sample_credentials.credential(issuer)
    assert signed["@context"] == [canonical.VC_V2, canonical.OPEN_BADGES_3_0_3]
    assert signed["validFrom"] == "2026-01-01T00:00:00Z"
    assert signed["validUntil"] == "2099-01-01T23:59:59Z"
    assert signed["credentialStatus"]["statusListIndex"] == "4711"
    assert signed["credentialStatus"]["id"] == f"{sample_credentials.LIST_URL}#4711"
    assert signed["relatedResource"][0]["digestSRI"].startswith("sha384-")
    assert signed["proof"] == {
        "type": "DataIntegrityProof",
        "cryptosuite": "eddsa-rdfc-2022",
        "created": "2026-01-01T09:00:00Z",
        "verificationMethod": f"{issuer.did}#k1",
        "proofPurpose": "assertionMethod",
        "proofValue": signed["proof"]["proofValue"],
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vc_id", "cred_123"),
        ("vc_id", "urn:uuid:0198d0f0"),
        ("token", "short"),
        ("token", "0" * 22),
        ("recipient_name", " "),
        ("recipient_name", "a\x00b"),
        ("recipient_name", "a\ud800"),
        ("achievement_criteria", "x" * 20_001),
        ("issuer_url", "acme.example"),
        ("issuer_url", "https://acme.example/a b"),
        ("pdf_url", "https://creds.example.org/c/other/base.pdf"),
        ("pdf_sha384", b"short"),
        ("email_salt", "pepper"),
        ("email_hash", "md5$00"),
        ("status_list_index", -1),
        ("status_list_index", 131_072),
        ("status_purpose", "message"),
        ("valid_from", datetime(2026, 1, 1)),  # noqa: DTZ001 - the naive time is the point
        ("valid_until", datetime(2025, 1, 1, tzinfo=UTC)),
        ("verification_method", "did:web:other.example#k1"),
        ("subject_id", "holder"),
    ],
)
def test_content_that_cannot_be_signed_is_refused_by_field(field: str, value: object) -> None:
    """The field is named, its value is not repeated."""
    with pytest.raises(vc.InvalidContent) as refused:
        sample_credentials.content(sample_credentials.web_issuer(), **{field: value})
    assert refused.value.field == field
    if isinstance(value, str) and value.strip():
        assert value not in str(refused.value)


def test_signing_refuses_what_a_signature_would_not_cover() -> None:
    """An undefined term stops the signature, not the verifier years later."""
    issuer = sample_credentials.web_issuer()
    document = {**vc.build(sample_credentials.content(issuer)), "courseHours": "12"}
    with pytest.raises(UnsafeDocument, match="not defined"):
        issuer.sign(document)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path, *(found for key, item in value.items() for found in _paths(item, (*path, key)))]
    if isinstance(value, list):
        return [
            path,
            *(found for number, item in enumerate(value) for found in _paths(item, (*path, number))),
        ]
    return [path]


ISSUER = sample_credentials.web_issuer()
SIGNED = sample_credentials.credential(ISSUER)
PATHS = [path for path in _paths(SIGNED) if path]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("how", ["delete", "change", "add", "null"])
def test_no_mutation_of_a_credential_verifies(path: tuple[Any, ...], how: str) -> None:
    """Every field changed, removed, nulled or added to breaks the signature."""
    mutated = copy.deepcopy(SIGNED)
    parent = mutated
    for step in path[:-1]:
        parent = parent[step]
    value = parent[path[-1]]
    if how == "delete":
        del parent[path[-1]]
    elif how == "null":
        parent[path[-1]] = None
    elif how == "add":
        parent[path[-1]] = {**value, "extra": "x"} if isinstance(value, dict) else [value, "urn:x:extra"]
    else:
        parent[path[-1]] = _changed(value)
    assert not vc.verify_proof(mutated, ISSUER.signer.public_key)


def _changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1] != "x" else "y")
    return "urn:x:changed"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_flipped_character_of_the_stored_bytes_verifies(data: st.DataObject) -> None:
    """One byte changed anywhere in credential.json is noticed, or it is no JSON any more."""
    stored = bytearray(vc.stored_form(SIGNED))
    place = data.draw(st.integers(0, len(stored) - 1))
    stored[place] ^= 1 << data.draw(st.integers(0, 6))
    try:
        document = canonical.read_document(bytes(stored))
    except UnsafeDocument:
        return
    assert not vc.verify_proof(document, ISSUER.signer.public_key)


def test_reordered_and_indented_json_still_verifies() -> None:
    """A wallet that rewrites the file loses nothing."""
    rewritten = json.dumps(dict(reversed(SIGNED.items())), indent=3).encode()
    document = canonical.read_document(rewritten)
    assert vc.verify_proof(document, ISSUER.signer.public_key)
    assert vc.stored_form(document) == vc.stored_form(SIGNED)


def test_another_key_does_not_verify() -> None:
    """The caller's key decides, not the document's."""
    assert not vc.verify_proof(SIGNED, sample_credentials.web_issuer().signer.public_key)


def test_a_proof_of_another_document_does_not_verify() -> None:
    """A swapped proof is noticed."""
    other = sample_credentials.credential(ISSUER)
    assert not vc.verify_proof({**SIGNED, "proof": other["proof"]}, ISSUER.signer.public_key)


@pytest.mark.parametrize(
    "change",
    [
        {"cryptosuite": "ecdsa-rdfc-2019"},
        {"cryptosuite": "eddsa-jcs-2022"},
        {"type": "Ed25519Signature2020"},
        {"proofPurpose": "authentication"},
        {"verificationMethod": "k1"},
        {"created": "yesterday"},
        {"created": '2026-01-01T09:00:00Z" .\n'},
        {"proofValue": "m" + "A" * 86},
        {"proofValue": "z" + "1" * 64},
        {"proofValue": "z" + "0" * 88},
        {"proofValue": 7},
        {"expires": "2030-01-01T00:00:00Z"},
        {"@context": [canonical.VC_V2]},
    ],
)
def test_a_proof_of_another_form_is_refused(change: dict[str, Any]) -> None:
    """Only allow-listed suites, the assertion purpose and members that we check."""
    document = {**SIGNED, "proof": {**SIGNED["proof"], **change}}
    with pytest.raises(ProofRefused):
        vc.check_proof(document, ISSUER.signer.public_key)


@pytest.mark.parametrize("proof", [None, [], "proof", [SIGNED["proof"], SIGNED["proof"]]])
def test_a_document_carries_exactly_one_proof(proof: object) -> None:
    """None or several proofs are refused."""
    with pytest.raises(ProofRefused):
        vc.check_proof({**SIGNED, "proof": proof}, ISSUER.signer.public_key)


def _jcs_signed(document: dict[str, Any], proof_context: list[str]) -> dict[str, Any]:
    """Sign a document as others may, with eddsa-jcs-2022, the proof read in a context of its own."""
    options = vc.proof_options(
        "eddsa-jcs-2022", verification_method=ISSUER.method, created="2026-01-01T09:00:00Z", document=document
    )
    options["@context"] = proof_context
    signature = ISSUER.signer.sign(vc.hash_to_sign({**document, "@context": proof_context}, options))
    return {**document, "proof": {**options, "proofValue": "z" + did.base58btc(signature)}}


UNSIGNED = {key: value for key, value in SIGNED.items() if key != "proof"}


def test_a_jcs_proof_verifies_in_the_contexts_that_begin_the_document() -> None:
    """Credentials of others signed with eddsa-jcs-2022 are read, though we never issue them."""
    whole = list(UNSIGNED["@context"])
    assert vc.verify_proof(_jcs_signed(UNSIGNED, whole), ISSUER.signer.public_key)
    assert vc.verify_proof(_jcs_signed(UNSIGNED, whole[:1]), ISSUER.signer.public_key)
    assert not vc.verify_proof(_jcs_signed(UNSIGNED, whole[1:]), ISSUER.signer.public_key)
    assert not vc.verify_proof(_jcs_signed(UNSIGNED, whole[::-1]), ISSUER.signer.public_key)


def test_a_jcs_proof_over_undefined_terms_is_refused() -> None:
    """JCS covers every byte, but what nobody defined means nothing to anybody."""
    signed = _jcs_signed({**UNSIGNED, "courseHours": "12"}, list(UNSIGNED["@context"]))
    with pytest.raises(ProofRefused, match="not defined"):
        vc.check_proof(signed, ISSUER.signer.public_key)


def test_a_truly_signed_condition_that_we_do_not_check_is_refused() -> None:
    """A proof that says when it expires must not be read as one that never does."""
    options = {
        **vc.proof_options(
            "eddsa-rdfc-2022",
            verification_method=ISSUER.method,
            created="2026-01-01T09:00:00Z",
            document=UNSIGNED,
        ),
        "expires": "2026-02-01T00:00:00Z",
    }
    signature = ISSUER.signer.sign(vc.hash_to_sign(UNSIGNED, options))
    with pytest.raises(ProofRefused, match="not understood"):
        vc.check_proof(vc.add_proof(UNSIGNED, options, signature), ISSUER.signer.public_key)
