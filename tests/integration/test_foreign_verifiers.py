# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conferral.domain import canonical, credential_checks, did, vc
from support import require
from support.sample_credentials import (
    LIST_URL,
    PUBLIC_URL,
    Issuer,
    content,
    credential,
    key_issuer,
    signed_list,
    web_issuer,
)

FOREIGN = Path(__file__).parents[1] / "foreign"
SCHEMA_URL = "https://purl.imsglobal.org/spec/ob/v3p0/schema/json/ob_v3p0_achievementcredential_schema.json"
INSTALL_SECONDS = 300
VERIFY_SECONDS = 180


@dataclasses.dataclass(frozen=True)
class Case:
    """One credential, the documents a stranger finds, and what every verifier has to make of it."""

    name: str
    credential: dict[str, Any]
    documents: dict[str, Any]
    keys: dict[str, bytes]


Answers = dict[str, dict[str, Any]]


def _case(
    name: str,
    issuer: Issuer,
    signed: dict[str, Any],
    *,
    status_list: dict[str, Any] | None = None,
    published: dict[str, Any] | None = None,
) -> Case:
    documents: dict[str, Any] = {LIST_URL: status_list or signed_list(issuer)}
    document = published or issuer.document
    if issuer.did.startswith("did:web:"):
        documents[did.did_document_url(issuer.did)] = document
    return Case(name, signed, documents, did.assertion_keys(document))


_numbers = itertools.count(1)


def _numbered() -> Issuer:
    """Every case has an issuer of its own: verifiers cache DID documents."""
    return web_issuer(f"acme{next(_numbers)}")


def _valid_cases() -> list[Case]:
    cases = []
    for name, changes in {
        "plain": {},
        "no end": {"valid_until": None},
        "suspendable": {"status_purpose": "suspension"},
        "holder": {"subject_id": "did:example:holder"},
        "no issuer url": {"issuer_url": None},
        "scripts": {
            "recipient_name": 'محمد "العربي" \u200f Zoë \\ \U0001d4b3 O\u2019Neil',
            "achievement_name": "数学",
        },
        "line breaks": {"achievement_criteria": "First line\nsecond\tline\r\nthird <b>&amp;</b>"},
    }.items():
        issuer = _numbered()
        purpose = str(changes.get("status_purpose", "revocation"))
        others = signed_list(issuer, [4710, 4712], purpose=purpose)
        cases.append(_case(name, issuer, credential(issuer, **changes), status_list=others))
    holder_of_key = key_issuer()
    cases.append(_case("did:key", holder_of_key, credential(holder_of_key)))
    cases.append(_rotated_case())
    reordered = _numbered()
    shuffled = json.loads(json.dumps(dict(reversed(credential(reordered).items())), indent=2))
    cases.append(_case("reordered", reordered, shuffled))
    return cases


def _rotated_case() -> Case:
    """The first key signed, the second one is current, both are published."""
    issuer = _numbered()
    second = dataclasses.replace(web_issuer(), did=issuer.did, number=2)
    published = did.did_document(issuer.did, [issuer.key, second.key])
    return _case(
        "rotated key",
        issuer,
        credential(issuer),
        status_list=signed_list(second),
        published=published,
    )


def _changed(issuer: Issuer, *path: str | int, value: Any) -> dict[str, Any]:
    signed = copy.deepcopy(credential(issuer))
    parent: Any = signed
    for step in path[:-1]:
        parent = parent[step]
    if value is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return signed


def _tampered_cases() -> list[Case]:
    changes: dict[str, tuple[tuple[str | int, ...], Any]] = {
        "changed name": (("credentialSubject", "identifier", 1, "identityHash"), "Eve"),
        "changed achievement": (("credentialSubject", "achievement", "name"), "Medicine"),
        "changed pdf digest": (("relatedResource", 0, "digestSRI"), vc.digest_sri(bytes(48))),
        "changed proof.created": (("proof", "created"), "2026-01-02T09:00:00Z"),
        "deleted field": (("validUntil",), None),
        "deleted status": (("credentialStatus",), None),
        "undefined field": (("courseHours",), "12"),
        "undefined type": (("type",), ["VerifiableCredential", "OpenBadgeCredential", "Kurs"]),
        "other index": (("credentialStatus", "statusListIndex"), "4712"),
        "other purpose of proof": (("proof", "proofPurpose"), "authentication"),
    }
    cases = []
    for name, (path, value) in changes.items():
        issuer = _numbered()
        cases.append(_case(name, issuer, _changed(issuer, *path, value=value)))
    issuer = _numbered()
    swapped = {**credential(issuer), "proof": credential(issuer)["proof"]}
    cases.append(_case("swapped proof", issuer, swapped))
    cases.extend(_key_cases())
    return cases


def _key_cases() -> list[Case]:
    issuer, stranger = _numbered(), _numbered()
    forged = dataclasses.replace(issuer, signer=stranger.signer)
    by_stranger = vc.sign(
        vc.build(content(issuer)),
        sign=stranger.signer.sign,
        verification_method=stranger.method,
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )
    foreign = _case("key of another issuer", issuer, by_stranger)
    withdrawn = _numbered()
    second = dataclasses.replace(web_issuer(), did=withdrawn.did, number=2)
    kept = did.did_document(withdrawn.did, [withdrawn.key, second.key])
    kept["assertionMethod"] = [second.method]
    return [
        _case("stranger under the issuer's method", issuer, credential(forged)),
        # The documents hold the stranger's DID as well: it resolves, but it is not the issuer.
        dataclasses.replace(
            foreign,
            documents={**foreign.documents, did.did_document_url(stranger.did): stranger.document},
            keys={**foreign.keys, **stranger.keys},
        ),
        _case("withdrawn key", withdrawn, credential(withdrawn), published=kept),
    ]


def _status_cases() -> list[Case]:
    week_old = datetime.now(UTC) - timedelta(days=8)
    cases = []
    for name, purpose in (("revoked", "revocation"), ("suspended", "suspension")):
        issuer = _numbered()
        listed = signed_list(issuer, [4711], purpose=purpose)
        cases.append(_case(name, issuer, credential(issuer, status_purpose=purpose), status_list=listed))
    expired, early, stranger, old, other, beyond = (_numbered() for _ in range(6))
    cases.append(_case("expired", expired, credential(expired, valid_until=datetime(2026, 1, 2, tzinfo=UTC))))
    cases.append(
        _case("not yet valid", early, credential(early, valid_from=datetime(2098, 1, 1, tzinfo=UTC)))
    )
    by_stranger = signed_list(dataclasses.replace(stranger, signer=web_issuer().signer))
    cases.append(_case("list of a stranger", stranger, credential(stranger), status_list=by_stranger))
    expired_list = signed_list(old, validUntil=vc.timestamp(week_old))
    cases.append(_case("expired list", old, credential(old), status_list=expired_list))
    suspension = signed_list(other, purpose="suspension")
    cases.append(_case("list of another purpose", other, credential(other), status_list=suspension))
    document = vc.build(content(beyond))
    document["credentialStatus"]["statusListIndex"] = "131072"
    cases.append(_case("index beyond the list", beyond, beyond.sign(document)))
    return cases


VALID = _valid_cases()
BROKEN = _tampered_cases() + _status_cases()


@cache
def _install() -> str:
    """Install the pinned verifiers once; return node's path."""
    node = require.program("node", "apt-get install nodejs")
    if not (FOREIGN / "node_modules").is_dir():
        npm = require.program("npm", "apt-get install npm")
        done = subprocess.run(
            [npm, "ci"], cwd=FOREIGN, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
        if done.returncode != 0:
            require.missing("the foreign verifiers are not installed", "cd tests/foreign && npm ci")
    return node


@pytest.fixture(scope="module")
def answers() -> Answers:
    """What the foreign verifiers say about all cases, by name."""
    node = _install()
    schema = json.loads((require.test_data() / SCHEMA_URL.rpartition("/")[2]).read_text())
    question = {
        "contexts": dict(canonical.CONTEXTS),
        "cases": [
            {
                "name": case.name,
                "credential": case.credential,
                "documents": {**case.documents, SCHEMA_URL: schema},
            }
            for case in [*VALID, *BROKEN]
        ],
    }
    done = subprocess.run(
        [node, "verify.mjs"],
        cwd=FOREIGN,
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=VERIFY_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {answer["name"]: answer for answer in json.loads(done.stdout)["cases"]}


def _ours_accepts(case: Case) -> bool:
    """Judge the case with our own pure checks, on the same documents."""
    now = datetime.now(UTC)
    signature = credential_checks.check_signature(case.credential, case.keys)
    issuer = credential_checks.check_issuer(case.credential, list(case.keys))
    status = credential_checks.check_status_list(case.credential, case.documents[LIST_URL], case.keys, now)
    begins, ends = credential_checks.validity_of(case.credential)
    is_in_period = (begins is None or begins <= now) and (ends is None or now <= ends)
    return bool(signature.ok and issuer.ok and status.standing.value == "in_force" and is_in_period)


def _core_accepts(answer: dict[str, Any], purpose: str) -> bool:
    core = answer["core"]
    log = core["log"]
    return (
        not core["errors"]
        and log.get("valid_signature") is True
        and log.get("expiration") is True
        and log.get(f"{purpose}_status") is True
        and core["schema"]
    )


def _purpose(case: Case) -> str:
    return str(case.credential.get("credentialStatus", {}).get("statusPurpose", "revocation"))


def _bazaar_accepts(answer: dict[str, Any]) -> bool:
    bazaar = answer["bazaar"]
    return bazaar["verified"] is True and bazaar["status"] == [False]


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_foreign_verifiers_accept_what_we_issue(case: Case, answers: Answers) -> None:
    """Signature, status, period and Open Badges schema hold in both foreign verifiers and in ours."""
    answer = answers[case.name]
    assert _ours_accepts(case)
    assert _core_accepts(answer, _purpose(case)), answer["core"]
    assert _bazaar_accepts(answer), answer["bazaar"]


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_foreign_verifiers_ask_only_for_what_we_serve(case: Case, answers: Answers) -> None:
    """A verification calls did.json, the status list and the schema, and nobody else."""
    expected = {SCHEMA_URL, LIST_URL}
    asked = set(answers[case.name]["asked"])
    assert asked - expected <= {url for url in case.documents if url.endswith("/did.json")}
    assert LIST_URL in asked
    assert all(url == SCHEMA_URL or url.startswith(PUBLIC_URL) for url in asked)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_nobody_accepts_a_broken_one(case: Case, answers: Answers) -> None:
    """Each of the negative set is refused by our checks and by both foreign verifiers."""
    answer = answers[case.name]
    assert not _ours_accepts(case)
    assert not _core_accepts(answer, _purpose(case)), answer["core"]
    assert not _bazaar_accepts(answer), answer["bazaar"]
