# SPDX-License-Identifier: Apache-2.0
"""What signing costs: by shape against the plain path. Prints ratios; a machine's load never fails it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from conferral.domain import data_integrity, vc
from conferral.domain.canonical import canonical_nquads
from conferral.domain.signing_shape import learn, outline
from conferral.services.signing_shapes import SigningShapes
from support import sample_credentials

ROUNDS = 9
PER_ROUND = 25  # documents a round and way: the ways take turns, so that a busy moment meets all of them
ISSUER = sample_credentials.web_issuer()
CONTENTS = [sample_credentials.content(ISSUER, recipient_name=f"Ada {number}") for number in range(PER_ROUND)]


def milliseconds(ways: dict[str, Callable[[Any], object]], inputs: list[Any]) -> dict[str, float]:
    """Return the median CPU milliseconds an input of each way."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(inputs[0])  # contexts are read, shapes learned
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.process_time()
            for one in inputs:
                way(one)
            spent[name].append((time.process_time() - began) * 1000 / len(inputs))
    return {name: statistics.median(times) for name, times in spent.items()}


def show(capsys: pytest.CaptureFixture[str], title: str, costs: dict[str, float]) -> None:
    """Print a table; the first row is what the others are compared with."""
    base = next(iter(costs.values()))
    with capsys.disabled():
        print(f"\n\n{title:<46}{'ms':>9}{'times as fast':>16}")  # noqa: T201 - a benchmark prints
        for name, cost in costs.items():
            print(f"  {name:<44}{cost:>9.3f}{base / cost:>15.1f}x")  # noqa: T201 - the same


def test_signing_by_shape_against_the_plain_path(capsys: pytest.CaptureFixture[str]) -> None:
    """Unsigned document to signed and verified document, and its two halves."""
    shapes = SigningShapes()

    def signed(document: dict[str, Any], canonicalise: Callable[[Any], bytes]) -> dict[str, Any]:
        options = vc.proof_options(
            data_integrity.EDDSA_RDFC,
            verification_method=ISSUER.method,
            created=vc.timestamp(sample_credentials.CREATED),
            document=document,
        )
        hashed = vc.hash_to_sign(document, options, canonicalise=canonicalise)
        done = vc.add_proof(document, options, ISSUER.signer.sign(hashed))
        if canonicalise is not canonical_nquads:
            data_integrity.check_hashed(done, hashed, ISSUER.signer.public_key)
        return done

    def plainly(document: dict[str, Any]) -> object:
        return signed(document, canonical_nquads)

    def plainly_verified(document: dict[str, Any]) -> bool:
        return vc.verify_proof(signed(document, canonical_nquads), ISSUER.signer.public_key)

    documents = [vc.build(content) for content in CONTENTS]
    costs = milliseconds(
        {
            "plain, verified by hashing again": plainly_verified,
            "plain, not verified": plainly,
            "shape, verified over the same hash": lambda document: signed(document, shapes.nquads),
            "Ed25519 alone": lambda _: ISSUER.signer.sign(bytes(64)),
        },
        documents,
    )
    show(capsys, "signing one credential", costs)
    shape = learn(documents[0])
    costs = milliseconds(
        {
            "plain: JSON-LD, RDF, RDFC-1.0": canonical_nquads,
            "shape": lambda document: shape.nquads(outline(document)[1]),
            "shape, of it the outline": outline,
        },
        documents,
    )
    show(capsys, "canonical N-Quads of one credential", costs)


def test_learning_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """Paid once an outline and process; the row says after how many documents it is earned back."""
    document = vc.build(CONTENTS[0])
    costs = milliseconds({"plain": canonical_nquads, "learning": learn}, [document])
    with capsys.disabled():
        documents = costs["learning"] / costs["plain"]
        print(f"\n\nlearning a shape: {costs['learning']:.0f} ms, {documents:.0f} plain documents")  # noqa: T201
