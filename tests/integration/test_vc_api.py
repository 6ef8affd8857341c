# SPDX-License-Identifier: Apache-2.0
"""VC-API: what other software sends, in the protocol's own shapes; what it would silently drop is refused."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import update
from werkzeug.test import TestResponse

from conferral.domain import canonical, credential, data_integrity, vc
from conferral.store import tables
from support.brought import Brought, two_certificates
from support.sample_credentials import Issuer, key_issuer, web_issuer

ISSUER = key_issuer()
HOLDER = key_issuer()
PLAIN = {
    "@context": [canonical.VC_V2],
    "id": "urn:uuid:00000000-0000-4000-8000-000000000001",
    "type": ["VerifiableCredential"],
    "issuer": ISSUER.did,
    "validFrom": "2020-01-01T00:00:00Z",
    "credentialSubject": {"id": "did:example:somebody"},
}
OLD = {
    "@context": [canonical.VC_V1, canonical.DATA_INTEGRITY_V2],
    "id": "urn:uuid:00000000-0000-4000-8000-000000000002",
    "type": ["VerifiableCredential"],
    "issuer": ISSUER.did,
    "issuanceDate": "2020-01-01T00:00:00Z",
    "credentialSubject": {"id": "did:example:somebody"},
}


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brought]:
    """Yield the application with two certificates."""
    with two_certificates(tmp_path_factory.mktemp("vc-api")) as made:
        yield made


@pytest.fixture
def api(issued: Brought, monkeypatch: pytest.MonkeyPatch) -> Brought:
    """Yield it without the limit of requests."""
    monkeypatch.setattr("conferral.web.public.answers.limit", lambda: None)
    return issued


def sign(
    document: dict[str, Any], signer: Issuer = ISSUER, suite: str = data_integrity.EDDSA_RDFC, **more: str
) -> dict[str, Any]:
    """Sign any document with any suite and purpose."""
    options = {
        **data_integrity.proof_options(
            suite,
            verification_method=signer.method,
            created="2026-01-01T09:00:00Z",
            document=document,
        ),
        **more,
    }
    if suite == data_integrity.EDDSA_JCS:
        del options["@context"]
    hashed = data_integrity.hash_to_sign(document, options)
    return vc.add_proof(document, options, signer.signer.sign(hashed))


def credential_of(api: Brought, document: Any, **options: Any) -> TestResponse:
    """Ask for a credential."""
    body = {"verifiableCredential": document, "options": options}
    return api.web.client.post("/vc-api/credentials/verify", json=body)


def presentation_of(api: Brought, document: Any, **options: Any) -> TestResponse:
    """Ask for a presentation."""
    body = {"verifiablePresentation": document, "options": options}
    return api.web.client.post("/vc-api/presentations/verify", json=body)


@pytest.mark.parametrize("suite", [data_integrity.EDDSA_RDFC, data_integrity.EDDSA_JCS])
@pytest.mark.parametrize("document", [PLAIN, OLD], ids=["2.0", "1.1"])
def test_a_sound_credential_of_either_model_and_suite_is_verified(
    api: Brought, document: dict[str, Any], suite: str
) -> None:
    """200 with `verified: true` and all checks true."""
    answer = credential_of(api, sign(document, suite=suite))
    assert (answer.status_code, answer.json["verified"]) == (200, True), answer.json
    assert "errors" not in answer.json


def test_our_own_credential_is_judged_by_our_records(api: Brought) -> None:
    """Verified with its PDF's digest compared; revoked as soon as the row is."""
    document = api.document()
    answer = credential_of(api, document)
    assert answer.json["verified"] is True
    assert {name: answer.json["checks"][-1][name] for name in ("id", "ok")} == {
        "id": "relatedResource",
        "ok": True,
    }
    rows = tables.credentials
    with api.web.product.rt.database.transaction() as session:
        session.execute(update(rows).where(rows.c.id == api.rows[0].id).values(state=credential.REVOKED))
    try:
        revoked = credential_of(api, document)
    finally:
        with api.web.product.rt.database.transaction() as session:
            session.execute(update(rows).where(rows.c.id == api.rows[0].id).values(state=credential.ISSUED))
    assert (revoked.status_code, revoked.json["verified"]) == (400, False)
    assert [error["id"] for error in revoked.json["errors"]] == ["status"]


def changed(document: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return a document with members replaced; None removes one."""
    merged = {**copy.deepcopy(document), **members}
    return {name: value for name, value in merged.items() if value is not None}


SIGNED = sign(PLAIN)


@pytest.mark.parametrize(
    "document",
    [
        changed(SIGNED, validFrom="2021-01-01T00:00:00Z"),
        changed(SIGNED, extra="dropped by JSON-LD without a word"),
        changed(SIGNED, credentialSubject={"id": "did:example:somebody", "undefined": "x"}),
        changed(SIGNED, type=["VerifiableCredential", "Undefined"]),
        changed(SIGNED, type=["VerifiableCredential", "relative/type"]),
        changed(SIGNED, credentialSubject={"id": "relative"}),
        changed(SIGNED, **{"@context": [canonical.VC_V2, {"issuer": "https://x.example/y"}]}),
        changed(SIGNED, **{"@context": [canonical.VC_V2, "https://elsewhere.example/context"]}),
        changed(SIGNED, **{"@context": [canonical.OPEN_BADGES_3_0_3, canonical.VC_V2]}),
        changed(SIGNED, proof=None),
        changed(SIGNED, proof=[SIGNED["proof"], SIGNED["proof"]]),
        changed(SIGNED, proof={**SIGNED["proof"], "proofPurpose": "authentication"}),
        changed(SIGNED, proof={**SIGNED["proof"], "cryptosuite": "ecdsa-rdfc-2019"}),
        changed(SIGNED, proof={**SIGNED["proof"], "type": "Ed25519Signature2020"}),
        changed(SIGNED, proof={**SIGNED["proof"], "verificationMethod": HOLDER.method}),
        changed(SIGNED, issuer=HOLDER.did),
        changed(SIGNED, credentialSubject=None),
        changed(SIGNED, type=["Undefined"]),
        sign(changed(PLAIN, validFrom="2999-01-01T00:00:00Z")),
        sign(changed(PLAIN, validUntil="2001-01-01T00:00:00Z")),
        sign({**PLAIN, "issuer": HOLDER.did}),
        sign({**PLAIN, "issuer": "did:web:elsewhere.example"}, web_issuer()),
        sign(
            {
                **PLAIN,
                "credentialStatus": {
                    "id": "https://elsewhere.example/status/1#1",
                    "type": "BitstringStatusListEntry",
                    "statusPurpose": "revocation",
                    "statusListIndex": "1",
                    "statusListCredential": "https://elsewhere.example/status/1",
                },
            }
        ),
        sign(changed(OLD, issuanceDate=None)),
    ],
)
def test_what_is_wrong_or_cannot_be_told_is_not_verified(api: Brought, document: dict[str, Any]) -> None:
    """400 with `verified: false` and at least one error, whatever is wrong."""
    answer = credential_of(api, document)
    assert (answer.status_code, answer.json["verified"]) == (400, False), answer.json
    assert answer.json["errors"]


def test_the_digest_of_a_resource_here_is_compared(api: Brought) -> None:
    """A document that names our PDF by another digest is refused, though its signature is true."""
    base = f"{api.web.product.rt.public_url}/c/{api.rows[0].token}/base.pdf"
    content = api.pdfs[0][: api.rows[0].base_length]
    digest = "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()
    for sri, is_right in ((digest, True), ("sha384-" + "A" * 64, False)):
        resource = {"id": base, "mediaType": "application/pdf", "digestSRI": sri}
        answer = credential_of(api, sign({**PLAIN, "relatedResource": [resource]}))
        assert answer.json["verified"] is is_right, answer.json


def presented(*credentials: dict[str, Any], **more: str) -> dict[str, Any]:
    """Return a presentation of a holder."""
    document = {
        "@context": [canonical.VC_V2],
        "type": ["VerifiablePresentation"],
        "holder": HOLDER.did,
        "verifiableCredential": list(credentials),
    }
    return sign(document, HOLDER, proofPurpose="authentication", **more)


def test_a_presentation_is_verified_with_all_that_is_in_it(api: Brought) -> None:
    """For its challenge and domain; one of ours and one of somebody else."""
    document = presented(SIGNED, api.document(), challenge="c1", domain="employer.example")
    answer = presentation_of(api, document, challenge="c1", domain="employer.example")
    assert (answer.status_code, answer.json["verified"]) == (200, True), answer.json
    for options in ({}, {"challenge": "c2", "domain": "employer.example"}, {"challenge": "c1"}):
        refused = presentation_of(api, document, **options)
        assert (refused.status_code, refused.json["verified"]) == (400, False)


def test_a_presentation_with_something_false_is_not_verified(api: Brought) -> None:
    """A false credential in it, a changed holder, another purpose, none at all, too many."""
    forged = changed(SIGNED, validFrom="2021-01-01T00:00:00Z")
    sound = presented(SIGNED)
    for document in (
        presented(forged),
        changed(sound, holder=ISSUER.did),
        changed(sound, verifiableCredential=[SIGNED, SIGNED]),
        sign({name: value for name, value in sound.items() if name != "proof"}, HOLDER),
        changed(sound, verifiableCredential=[]),
        changed(sound, verifiableCredential=[SIGNED] * 9),
        changed(sound, proof=None),
        changed(sound, type=["VerifiableCredential"]),
    ):
        answer = presentation_of(api, document)
        assert (answer.status_code, answer.json["verified"]) == (400, False), document


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "json_invalid"),
        (
            b'{"verifiableCredential": {}, "verifiableCredential": {}}',
            "application/json",
            400,
            "json_invalid",
        ),
        (b"[" * 10_000, "application/json", 400, "json_invalid"),
        (b"{}", "application/json", 400, "request_invalid"),
        (b'{"verifiableCredential": "eyJ"}', "application/json", 400, "request_invalid"),
        (b"{}", "text/plain", 415, "media_type_unsupported"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "application/json", 413, "body_too_large"),
    ],
)
def test_a_request_that_is_none_is_a_problem(
    api: Brought, content: bytes, kind: str, status: int, code: str
) -> None:
    """Malformed requests are told apart from credentials that are not verified."""
    answer = api.web.client.post("/vc-api/credentials/verify", data=content, content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_strangers_are_slowed_down(issued: Brought) -> None:
    """The limit of /verify."""
    codes = [
        issued.web.client.post("/vc-api/credentials/verify", data=json.dumps({}), content_type="text/plain")
        for _ in range(130)
    ]
    assert 429 in {answer.status_code for answer in codes}
