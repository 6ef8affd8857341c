# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from conferral.domain import vc
from conferral.domain.canonical import UnsafeDocument, canonical_nquads
from support import sample_credentials

ISSUER = sample_credentials.web_issuer()
SIGNED = sample_credentials.credential(ISSUER)
NAMES = ("extra", "name", "id", "type", "validUntil", "@id", "description", "https://x.example/y")
VALUES: tuple[Any, ...] = (True, None, "", "x", [], {}, 0, -1, 1e300, ["a"], [[]], "x" * 1000, [SIGNED])
MUTATIONS_PER_SEED = 250


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield from _paths(member, (*path, key))


PATHS = list(_paths(SIGNED))


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def _mutated(source: random.Random) -> dict[str, Any]:
    """Replace, remove, add or move one piece of the credential."""
    document = copy.deepcopy(SIGNED)
    path = source.choice(PATHS)
    parent, last = _at(document, path[:-1]), path[-1]
    how = source.randrange(4)
    if how == 0:
        parent[last] = copy.deepcopy(_at(SIGNED, source.choice(PATHS)))
    elif how == 1:
        del parent[last]
    elif how == 2 and isinstance(parent, dict):
        parent[source.choice(NAMES)] = copy.deepcopy(source.choice(VALUES))
    else:
        parent[last] = copy.deepcopy(source.choice(VALUES))
    return document


def _says_the_same(document: dict[str, Any]) -> bool:
    """Tell whether document and proof still make exactly the signed statements."""
    try:
        statements = [
            canonical_nquads({key: value for key, value in each.items() if key != "proof"})
            for each in (document, SIGNED)
        ]
    except UnsafeDocument:
        return False
    return statements[0] == statements[1] and document.get("proof") == SIGNED["proof"]


@pytest.mark.parametrize("seed", range(4))
def test_only_another_spelling_of_the_same_statements_verifies(seed: int) -> None:
    """What verifies after any change says exactly what was signed (`["x"]` and `"x"` mean the same)."""
    source = random.Random(seed)
    for _ in range(MUTATIONS_PER_SEED):
        document = _mutated(source)
        if vc.verify_proof(document, ISSUER.signer.public_key):
            assert _says_the_same(document), document


@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\u3000", "\x85", "\u1680", "\ufeff", "\t", " "])
@pytest.mark.parametrize("member", ["evidence", "endorsement"])
def test_nothing_can_be_said_of_an_iri_that_json_ld_would_drop(space: str, member: str) -> None:
    """With white space in its id the library forgets an object; its text would pass for signed."""
    added = {"id": f"urn:x{space}y", "type": ["Evidence"], "name": "First in class"}
    assert not vc.verify_proof({**SIGNED, member: [added]}, ISSUER.signer.public_key)
