# SPDX-License-Identifier: Apache-2.0
"""Random changes of a credential, its PDF, its list and its log proof: none is ever accepted.

3,000 changes by default; CONFERRAL_TEST_MUTATIONS=100000 asks for more. The seed is printed and may be
given as CONFERRAL_TEST_SEED.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from conferral.domain import canonical, merkle, offline_check, status_list, vc
from conferral.domain.checkpoint import VerifierKey, sign_checkpoint, tlog_proof
from conferral.domain.offline_check import Brought, Pins
from conferral.domain.verification import Verdict
from support import sample_credentials

MUTATIONS = int(os.environ.get("CONFERRAL_TEST_MUTATIONS", "3000"))
SEED = int(os.environ.get("CONFERRAL_TEST_SEED", str(random.SystemRandom().randrange(1 << 32))))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ISSUER = sample_credentials.web_issuer()
STRANGER = sample_credentials.web_issuer()  # of the same name, with another key
NAMES = ("extra", "name", "id", "type", "validUntil", "@id", "description", "https://x.example/y", "proof")
VALUES: tuple[Any, ...] = (True, None, "", "x", [], {}, 0, -1, 1e300, ["a"], "VALID", "2099-01-01T00:00:00Z")
CHARACTERS = 'a0Z \u00e9\U0001f600\u200f"\\'


def brought() -> tuple[Brought, Pins]:
    """Return a credential that is valid by its list and its log, and the pins."""
    signed = sample_credentials.credential(ISSUER)
    stored = vc.stored_form(signed)
    entry, other = hashlib.sha256(stored).digest(), merkle.leaf_hash(b"\0" * 32)
    root = merkle.node_hash(other, merkle.leaf_hash(entry))
    key = ISSUER.signer
    note = sign_checkpoint("log.example/log", 2, root, key.sign, public_key=key.public_key)
    signed_list = ISSUER.sign(
        status_list.build(
            url=sample_credentials.LIST_URL, issuer_did=ISSUER.did, purpose="revocation",
            set_indices=[7], signed_at=NOW,
        )
    )  # fmt: skip
    pins = offline_check.pins_of([ISSUER.document], [VerifierKey("log.example/log", key.public_key)])
    return Brought(stored, None, vc.stored_form(signed_list), tlog_proof(1, [other], note)), pins


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every part of a document but the whole."""
    members: Any = enumerate(value) if isinstance(value, list) else ()
    members = value.items() if isinstance(value, dict) else members
    return [found for key, member in members for found in [(*path, key), *paths(member, (*path, key))]]


def at(document: Any, path: tuple[Any, ...]) -> Any:
    """Return a part of a document."""
    for step in path:
        document = document[step]
    return document


def a_part(source: random.Random, document: dict[str, Any]) -> bytes:
    """Replace, remove, add or move one part."""
    changed = copy.deepcopy(document)
    everywhere = paths(document)
    path = source.choice(everywhere)
    parent, how = at(changed, path[:-1]), source.randrange(4)
    if how == 0:
        parent[path[-1]] = copy.deepcopy(at(document, source.choice(everywhere)))
    elif how == 1:
        del parent[path[-1]]
    elif how == 2 and isinstance(parent, dict):
        parent[source.choice(NAMES)] = copy.deepcopy(source.choice(VALUES))
    else:
        parent[path[-1]] = copy.deepcopy(source.choice(VALUES))
    return json.dumps(changed).encode()


def a_character(source: random.Random, document: dict[str, Any]) -> bytes:
    """Change, remove or insert one character of a text."""
    changed = copy.deepcopy(document)
    texts = [path for path in paths(document) if isinstance(at(document, path), str)]
    path = source.choice(texts)
    text = at(document, path)
    place = source.randrange(len(text) + 1)
    kept = source.choice((0, 1))
    at(changed, path[:-1])[path[-1]] = text[:place] + source.choice([*CHARACTERS, ""]) + text[place + kept :]
    return json.dumps(changed).encode()


def a_byte(source: random.Random, document: dict[str, Any]) -> bytes:
    """Flip one bit of the stored bytes, or cut them, or repeat some."""
    stored = bytearray(canonical.jcs(document))
    place, how = source.randrange(len(stored)), source.randrange(8)
    if how == 0:
        return bytes(stored[:place])
    if how == 1:
        return bytes(stored[:place] + stored[place : place + 9] + stored[place:])
    stored[place] ^= 1 << source.randrange(8)
    return bytes(stored)


def a_signature(source: random.Random, document: dict[str, Any]) -> bytes:
    """Sign other content with a stranger's key, under the issuer's name."""
    changed = json.loads(
        a_character(source, {key: value for key, value in document.items() if key != "proof"})
    )
    try:
        return vc.stored_form(dataclasses.replace(STRANGER, did=ISSUER.did).sign(changed))
    except (canonical.UnsafeDocument, KeyError, TypeError):
        return b"{}"


HOW: tuple[Callable[[random.Random, dict[str, Any]], bytes], ...] = (a_part, a_character, a_byte, a_signature)


def says_the_same(content: bytes, document: dict[str, Any]) -> bool:
    """Tell whether it is another spelling of the same statements under the same proof."""
    try:
        brought_document = canonical.read_document(content)
        statements = [
            canonical.canonical_nquads({name: value for name, value in one.items() if name != "proof"})
            for one in (brought_document, document)
        ]
    except canonical.UnsafeDocument:
        return False
    return statements[0] == statements[1] and brought_document.get("proof") == document["proof"]


def test_no_change_of_a_credential_is_accepted() -> None:
    """Whatever is changed is TAMPERED or UNKNOWN, and never VALID with other content."""
    original, pins = brought()
    assert offline_check.judge(original, pins, NOW).verdict is Verdict.VALID
    document = json.loads(original.credential)
    source = random.Random(SEED)
    verdicts: Counter[Verdict] = Counter()
    began, spelt = time.monotonic(), 0
    for _ in range(MUTATIONS):
        content = source.choice(HOW)(source, document)
        judgement = offline_check.judge(dataclasses.replace(original, credential=content), pins, NOW)
        if judgement.checks and judgement.checks[0].ok:
            assert says_the_same(content, document), (SEED, content)
            spelt += 1
        else:
            assert judgement.verdict in (Verdict.TAMPERED, Verdict.UNKNOWN, Verdict.CANNOT_CHECK)
            assert len(judgement.checks) <= 1
            verdicts[judgement.verdict] += 1
    seconds = time.monotonic() - began
    sys.stdout.write(
        f"\nseed {SEED}: {MUTATIONS:,} changes in {seconds:.0f} s, 0 accepted; {spelt} were the same"
        f" in another spelling; { {verdict.value: count for verdict, count in verdicts.items()} }\n"
    )
    assert verdicts[Verdict.TAMPERED] > MUTATIONS // 3


@pytest.mark.parametrize("which", ["status_list", "tlog_proof"])
def test_no_change_of_the_evidence_makes_it_say_something_else(which: str) -> None:
    """A changed list says nothing, a changed proof is false: never another answer under a true signature."""
    original, pins = brought()
    source = random.Random(SEED)
    kept: Any = getattr(original, which)
    for _ in range(MUTATIONS // 10):
        raw = bytearray(kept if isinstance(kept, bytes) else kept.encode())
        raw[source.randrange(len(raw))] ^= 1 << source.randrange(8)
        changed: Any = bytes(raw) if isinstance(kept, bytes) else bytes(raw).decode("utf-8", "replace")
        judgement = offline_check.judge(dataclasses.replace(original, **{which: changed}), pins, NOW)
        found = {check.id: check.ok for check in judgement.checks}
        assert found["status" if which == "status_list" else "anchor"] is not True, (SEED, changed)
        assert judgement.verdict is not Verdict.REVOKED
