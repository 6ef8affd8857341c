# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import base64
import copy
import hashlib
import json
import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from conferral import standalone
from conferral.domain import canonical, did, merkle, offline_check, status_list, vc
from conferral.domain.checkpoint import VerifierKey, sign_checkpoint, tlog_proof
from conferral.domain.identity import identity_hash
from conferral.standalone import statements, verify
from conferral.standalone.log_and_list import read_vkey
from conferral.standalone.signatures import check_proof, keys_of_did_document, stored_form
from support import sample_credentials

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ISSUER = sample_credentials.web_issuer()
DOCUMENTS = 400
MUTATIONS = 1_000
ALPHABET = [
    "a",
    "Z",
    "é",
    "😀",
    '"',
    "\\",
    "\n",
    "\r",
    "\t",
    " ",
    "\u200f",
    "\u0301",
    "<",
    "{",
    "_:c14n0",
    "ع",
]


def text(source: random.Random, least: int = 1) -> str:
    """Return a hostile text that is not blank."""
    return "x" + "".join(source.choice(ALPHABET) for _ in range(source.randrange(least, 12)))


def random_document(source: random.Random) -> dict[str, Any]:
    """Return an unsigned credential with random content and random optional fields."""
    name = text(source)
    salt = f"{source.getrandbits(128):032x}"
    changes: dict[str, Any] = {
        "recipient_name": name,
        "issuer_name": source.choice([name, text(source)]),
        "achievement_name": source.choice([name, text(source)]),
        "achievement_description": text(source),
        "achievement_criteria": text(source),
        "achievement_type": source.choice(["Certificate", text(source)]),
        "email_salt": salt,
        "email_hash": identity_hash("a@example.com", salt),
        "valid_until": source.choice([None, vc.last_moment(date(2099, 1, 1))]),
        "issuer_url": source.choice([None, "https://acme.example/ü"]),
        "subject_id": source.choice([None, "did:key:zSomebody", ISSUER.did]),
        "status_list_index": source.randrange(131_072),
    }
    return vc.build(sample_credentials.content(ISSUER, **changes))


def test_our_statements_are_those_of_the_library_on_random_documents() -> None:
    """Two implementations, one set of bytes: quotes, line ends, marks, equal values, every optional field."""
    source = random.Random(4)
    for _ in range(DOCUMENTS):
        document = random_document(source)
        assert statements.canonical_statements(document) == canonical.canonical_nquads(document)
        assert stored_form(document) == canonical.jcs(document)


def test_our_statements_of_status_lists_are_those_of_the_library() -> None:
    """The same for the other kind of document that we sign."""
    for purpose in status_list.PURPOSES:
        document = status_list.build(
            url="https://a.example/status/1", issuer_did=ISSUER.did, purpose=purpose,
            set_indices=[1], signed_at=NOW,
        )  # fmt: skip
        assert statements.canonical_statements(document) == canonical.canonical_nquads(document)


def test_the_joined_program_defines_every_name_once_and_imports_little() -> None:
    """A name that two parts share would silently be the later one."""
    tree = ast.parse(standalone.program())
    names: Counter[str] = Counter()
    modules: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] += 1
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(ast.unparse(target) for target in targets)
    for found in ast.walk(tree):
        if isinstance(found, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in found.names}
        elif isinstance(found, ast.ImportFrom):
            modules.add(str(found.module).partition(".")[0])
    assert [name for name, count in names.items() if count > 1] == []
    assert not modules & {"conferral", "socket", "urllib", "http", "subprocess"}


def bundle(
    document: dict[str, Any] | None = None, *, signed_list: dict[str, Any] | None = None
) -> tuple[dict[str, bytes], VerifierKey]:
    """Return a credential with a status list and a log's proof, as members of a bundle."""
    signed = document or sample_credentials.credential(ISSUER)
    stored = vc.stored_form(signed)
    entry = hashlib.sha256(stored).digest()
    other = hashlib.sha256(b"other").digest()
    key = ISSUER.signer
    root = merkle.node_hash(merkle.leaf_hash(other), merkle.leaf_hash(entry))
    note = sign_checkpoint("log.example/log", 2, root, key.sign, public_key=key.public_key)
    members = {
        "credential.json": stored,
        "status.json": vc.stored_form(signed_list or in_date()),
        "credential.tlog-proof": tlog_proof(1, [merkle.leaf_hash(other)], note).encode(),
    }
    return members, VerifierKey("log.example/log", key.public_key)


def in_date(*indices: int, purpose: str = "revocation", signed_at: datetime = NOW) -> dict[str, Any]:
    """Return a list that is in date."""
    return ISSUER.sign(
        status_list.build(
            url=sample_credentials.LIST_URL, issuer_did=ISSUER.did, purpose=purpose,
            set_indices=indices, signed_at=signed_at,
        )
    )  # fmt: skip


def both(members: dict[str, bytes], key: VerifierKey, *, pinned: bool = True) -> tuple[str, str]:
    """Return the verdicts of the product and of the program."""
    pins = offline_check.pins_of([ISSUER.document] if pinned else [], [key] if pinned else [])
    brought = offline_check.Brought(
        members["credential.json"],
        status_list=members.get("status.json"),
        tlog_proof=members["credential.tlog-proof"].decode() if "credential.tlog-proof" in members else None,
    )
    ours = offline_check.judge(brought, pins, NOW)
    trusted = {ISSUER.did: keys_of_did_document(ISSUER.document)} if pinned else {}
    theirs, checks = verify.judge(members, trusted, [read_vkey(str(key))] if pinned else [], NOW)
    assert [check.id for check in ours.checks] == list(checks)
    assert [check.ok for check in ours.checks] == [ok for ok, _ in checks.values()], (ours.checks, checks)
    return ours.verdict.value, theirs


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "valid": ({}, "VALID"),
    "expired": ({"valid_until": vc.last_moment(date(2026, 2, 1))}, "EXPIRED"),
    "early": ({"valid_from": vc.first_moment(date(2027, 1, 1))}, "NOT_YET_VALID"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_program_says_what_the_product_says_about_dates(name: str) -> None:
    """VALID, EXPIRED, NOT YET VALID."""
    changes, verdict = CASES[name]
    assert both(*bundle(sample_credentials.credential(ISSUER, **changes))) == (verdict, verdict)


@pytest.mark.parametrize(
    ("signed_list", "verdict"),
    [
        (in_date(4711), "REVOKED"),
        (in_date(4712), "VALID"),
        (in_date(4711, purpose="suspension"), "CANNOT_CHECK"),
        (in_date(signed_at=NOW - timedelta(days=8)), "CANNOT_CHECK"),
        (sample_credentials.web_issuer("other").sign(in_date(4711)), "CANNOT_CHECK"),
        ({**in_date(), "id": "https://creds.example.org/status/8"}, "CANNOT_CHECK"),
        ({**in_date(4711), "credentialSubject": in_date()["credentialSubject"]}, "CANNOT_CHECK"),
    ],
)
def test_the_program_says_what_the_product_says_about_lists(
    signed_list: dict[str, Any], verdict: str
) -> None:
    """Revoked; and every list that says nothing."""
    assert both(*bundle(signed_list=signed_list)) == (verdict, verdict)


def test_a_suspended_credential_is_suspended() -> None:
    """By the purpose of its list."""
    document = sample_credentials.credential(ISSUER, status_purpose="suspension")
    members, key = bundle(document, signed_list=in_date(4711, purpose="suspension"))
    assert both(members, key) == ("SUSPENDED", "SUSPENDED")


def test_nobody_is_trusted_unless_pinned() -> None:
    """A did:web without its document cannot be checked; a key in the bundle is not even looked at."""
    members, key = bundle()
    assert both(members, key, pinned=False) == ("CANNOT_CHECK", "CANNOT_CHECK")


def test_a_proof_of_another_leaf_or_log_is_not_believed() -> None:
    """A wrong entry, a flipped hash, a checkpoint of somebody else."""
    members, key = bundle()
    proof = members["credential.tlog-proof"].decode()
    other, _ = bundle(sample_credentials.credential(ISSUER, recipient_name="Other"))
    hashes = base64.b64encode(bytes(32)).decode()
    for wrong in (
        other["credential.tlog-proof"].decode(),
        proof.replace("index 1", "index 0"),
        proof.replace(proof.split("\n")[2], hashes),
        proof.replace("log.example/log\n2\n", "log.example/log\n3\n"),
        "nonsense",
    ):
        assert both({**members, "credential.tlog-proof": wrong.encode()}, key) == ("TAMPERED", "TAMPERED")
    stranger = VerifierKey("log.example/log", sample_credentials.web_issuer().signer.public_key)
    assert both(members, stranger) == ("VALID", "VALID")  # not shown, and not said against it


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every part of a document."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for key, member in members for found in paths(member, (*path, key)))]


def mutated(source: random.Random, signed: dict[str, Any]) -> dict[str, Any]:
    """Return a document with one part replaced, removed, added, or with one character changed."""
    document = copy.deepcopy(signed)
    path = source.choice(paths(signed)[1:])
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    last, how = path[-1], source.randrange(4)
    values: list[Any] = [None, True, 1, "x", "", [], {}, ["x"], {"id": "urn:uuid:x"}, 1.5]
    if how == 0:
        del parent[last]
    elif how == 1:
        parent[last] = source.choice(values)
    elif how == 2 and isinstance(parent, dict):
        parent[source.choice(["extra", "type", "@id", "description", "id"])] = source.choice(values)
    elif isinstance(parent[last], str):
        place = source.randrange(len(parent[last]) + 1)
        parent[last] = parent[last][:place] + source.choice(ALPHABET) + parent[last][place + 1 :]
    else:
        parent[last] = source.choice(values)
    return document


def test_what_the_program_accepts_the_product_accepts() -> None:
    """1,000 random changes: never accepted here and refused there; other content is accepted nowhere."""
    source = random.Random(11)
    signed = sample_credentials.credential(ISSUER)
    accepted = 0
    for _ in range(MUTATIONS):
        document = mutated(source, signed)
        is_true = check_proof(document, ISSUER.keys)[0]
        if is_true:
            accepted += 1
            assert vc.verify_proof(document, ISSUER.signer.public_key)
            assert document["proof"] == signed["proof"]
        elif document == signed:
            pytest.fail("the original was refused")
    assert accepted < MUTATIONS // 20


def test_a_strict_reader_refuses_what_json_allows_twice() -> None:
    """Repeated members, NaN, deep nesting, a byte order mark."""
    for content in (b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 10_000, b"\xef\xbb\xbf{}", b"[]", b""):
        with pytest.raises(statements.Unsound):
            statements.read_json(content)


def test_a_did_document_of_somebody_else_is_refused() -> None:
    """A key whose controller is another one, or that is not allowed for assertions."""
    document = json.loads(json.dumps(ISSUER.document))
    assert keys_of_did_document(document) == did.assertion_keys(document)
    document["verificationMethod"][0]["controller"] = "did:web:elsewhere.example"
    with pytest.raises(statements.Unsound):
        keys_of_did_document(document)
    assert keys_of_did_document({**ISSUER.document, "assertionMethod": []}) == {}
