# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from conferral.domain import data_integrity, signing_shape, vc
from conferral.domain.canonical import UnsafeDocument, canonical_nquads
from conferral.domain.signing_shape import NoShape, Shape, learn, outline
from conferral.services import signing_shapes
from conferral.services.signing_shapes import CHECK_EVERY, SigningShapes
from support import hostile_documents, sample_credentials

ROWS = int(os.environ.get("CONFERRAL_TEST_SIGNING_ROWS", "1000"))
"""Rows compared with the plain path; a release compares 10,000."""
ISSUER = sample_credentials.web_issuer()
DOCUMENT = vc.build(sample_credentials.content(ISSUER))


def another(number: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a document of the usual outline, unless the changes make it another one."""
    return vc.build(sample_credentials.content(ISSUER, recipient_name=f"Ada {number}", **changes))


def plain(document: Mapping[str, Any]) -> bytes | None:
    """Return what the plain path writes, None if it refuses."""
    try:
        return canonical_nquads(document)
    except UnsafeDocument:
        return None


def counted(path: str) -> float:
    """Return how many documents went a way."""
    return signing_shapes.signed_documents.labels(path)._value.get()


def test_a_shape_writes_what_the_plain_path_writes() -> None:
    """Whatever the texts are: the same bytes, or the plain path is asked; and that is rarely needed."""
    shapes: dict[Any, Shape] = {}
    shaped = refused = 0
    for document in islice(hostile_documents.documents(seed=ROWS), ROWS):
        key, texts = outline(document)
        if key not in shapes:
            shapes[key] = learn(document)
        written, expected = shapes[key].nquads(texts), plain(document)
        shaped += written is not None
        refused += expected is None
        assert written is None or written == expected, texts
    said = f"{ROWS} rows, {len(shapes)} outlines: {shaped} by shape, {refused} refused by the plain path"
    print(f"\n{said}")  # noqa: T201 - what a release notes down
    assert shaped > 0.6 * ROWS
    assert refused


def test_a_place_is_a_position_and_not_a_value() -> None:
    """All texts equal, to each other and to constants: each still goes to its own place."""
    for text in ("Certificate", "application/pdf", "Ada", ""):
        document = another()
        document["name"] = document["issuer"]["name"] = text
        document["credentialSubject"]["achievement"]["name"] = text
        document["credentialSubject"]["achievement"]["description"] = text
        assert learn(DOCUMENT).nquads(outline(document)[1]) == canonical_nquads(document)


def test_the_signed_bytes_are_those_of_the_plain_path() -> None:
    """Hash, signature and stored form do not tell which way was taken."""
    shapes = SigningShapes()
    options = vc.proof_options(
        data_integrity.EDDSA_RDFC,
        verification_method=ISSUER.method,
        created=vc.timestamp(sample_credentials.CREATED),
        document=DOCUMENT,
    )
    for number in range(3):
        document = another(number)
        hashed = vc.hash_to_sign(document, options, canonicalise=shapes.nquads)
        signed = vc.add_proof(document, options, ISSUER.signer.sign(hashed))
        assert vc.stored_form(signed) == vc.stored_form(ISSUER.sign(document))
        data_integrity.check_hashed(signed, hashed, ISSUER.signer.public_key)


def test_a_signature_of_another_key_or_over_another_hash_is_noticed_without_canonicalising() -> None:
    """The check before storing asks the published key about the hash that was signed."""
    signed = ISSUER.sign(DOCUMENT)
    options = {"@context": DOCUMENT["@context"], **signed["proof"]}
    del options["proofValue"]
    hashed = vc.hash_to_sign(DOCUMENT, options)
    data_integrity.check_hashed(signed, hashed, ISSUER.signer.public_key)
    for wrong in (
        (signed, hashed, sample_credentials.web_issuer().signer.public_key),
        (signed, bytes(64), ISSUER.signer.public_key),
        ({**signed, "proof": {**signed["proof"], "proofValue": "z11"}}, hashed, ISSUER.signer.public_key),
    ):
        with pytest.raises(data_integrity.ProofRefused):
            data_integrity.check_hashed(*wrong)


def test_an_outline_keeps_apart_what_makes_other_statements() -> None:
    """Members, list lengths, types and values that are no texts; but not the texts."""
    assert outline(another(1))[0] == outline(another(2))[0]
    subject = DOCUMENT["credentialSubject"]
    others: list[dict[str, Any]] = [
        {**DOCUMENT, "type": ["VerifiableCredential"]},
        {**DOCUMENT, "name": ["Applied Statistics"]},
        {**DOCUMENT, "name": ["a", "b"]},
        {**DOCUMENT, "@context": DOCUMENT["@context"][:1]},
        {**DOCUMENT, "credentialSubject": {**subject, "identifier": subject["identifier"][:1]}},
        *({**DOCUMENT, "name": value} for value in (1, True, 1.0, None, "1", {}, [], [[]])),
        {key: value for key, value in DOCUMENT.items() if key != "name"},
    ]
    keys = {outline(document)[0] for document in others}
    assert len(keys | {outline(DOCUMENT)[0]}) == len(others)  # the name "1" alone is a text like any


def test_texts_that_are_only_part_of_a_value_have_no_shape() -> None:
    """Two texts in one JSON literal claim one place: nobody may guess which part is whose."""
    schema = {
        "id": "https://acme.example/schema",
        "type": "JsonSchema",
        "jsonSchema": {"title": "one", "description": "two"},
    }
    document = {**DOCUMENT, "credentialSchema": schema}
    assert canonical_nquads(document)
    with pytest.raises(NoShape):
        learn(document)


def test_a_shape_that_would_not_write_the_plain_bytes_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text changed alone must change its places and nothing else."""
    monkeypatch.setattr(signing_shape, "escape", lambda text: text)
    with pytest.raises(NoShape, match="more than its places"):
        learn(DOCUMENT)


@pytest.mark.parametrize(
    "change", [{"courseHours": "12"}, {"type": ["VerifiableCredential", "Nonsense"]}, {"name": None}]
)
def test_what_json_ld_would_drop_is_refused_when_a_shape_is_learned(change: dict[str, Any]) -> None:
    """The plain path's own checks run with it: undefined terms, relative types, null."""
    with pytest.raises(UnsafeDocument):
        learn({**DOCUMENT, **change})
    with pytest.raises(UnsafeDocument):
        SigningShapes().nquads({**DOCUMENT, **change})


def test_what_cannot_be_told_from_places_goes_the_plain_way() -> None:
    """Blank nodes that look alike, statements that become equal, strange IRIs: rather no answer."""
    twins = another()
    identifiers = twins["credentialSubject"]["identifier"]
    identifiers[1] = {**identifiers[0], "identityHash": "other"}
    shape = learn(twins)
    identifiers[1]["identityHash"] = identifiers[0]["identityHash"]
    assert shape.nquads(outline(twins)[1]) is None
    tagged = another()
    tagged["credentialSubject"]["achievement"]["tag"] = ["one", "one"]
    assert learn(tagged).nquads(outline(tagged)[1]) is None
    strange = {**another(), "id": "name:x"}
    assert learn(strange).nquads(outline(strange)[1]) is None
    shapes = SigningShapes()
    for document in (twins, tagged, strange):
        assert shapes.nquads(document) == canonical_nquads(document)


def test_the_first_document_and_every_500th_go_both_ways() -> None:
    """A shape that was right when it was learned is asked again and again."""
    shapes, both = SigningShapes(), counted("both")
    for number in range(2 * CHECK_EVERY):
        shapes.nquads(DOCUMENT if number % 2 else {**DOCUMENT, "name": str(number)})
    assert counted("both") - both == 2
    shapes.nquads(DOCUMENT)
    assert counted("both") - both == 3


def _spoiled(document: Mapping[str, Any]) -> Shape:
    """Learn a shape and forget one of its statements."""
    shape = learn(document)
    return dataclasses.replace(shape, lines=shape.lines[:-1])


def test_a_wrong_shape_is_dropped_and_told_at_its_first_document(caplog: pytest.LogCaptureFixture) -> None:
    """The plain bytes are signed, an alert is logged without a name, and the plain path goes on."""
    shapes, dropped = SigningShapes(learner=_spoiled), signing_shapes.mismatches._value.get()
    assert shapes.nquads(DOCUMENT) == canonical_nquads(DOCUMENT)
    assert shapes.nquads(later := another()) == canonical_nquads(later)
    assert signing_shapes.mismatches._value.get() - dropped == 1
    (alert,) = caplog.records
    assert (alert.message, alert.levelno) == ("signing_shape_mismatch", logging.ERROR)
    assert vars(alert)["signed_unchecked"] == 0
    assert "Ada" not in str(vars(alert))


def test_a_shape_that_goes_wrong_later_is_found_by_the_500th(caplog: pytest.LogCaptureFixture) -> None:
    """The alert says how many documents nobody compared."""
    shapes = SigningShapes()
    shapes.nquads(DOCUMENT)
    (known,) = shapes._shapes.values()
    known.shape = _spoiled(DOCUMENT)
    written = [shapes.nquads(DOCUMENT) for _ in range(CHECK_EVERY)]
    assert written[-2] != canonical_nquads(DOCUMENT)
    assert written[-1] == canonical_nquads(DOCUMENT)
    assert known.shape is None
    (alert,) = caplog.records
    assert vars(alert)["signed_unchecked"] == CHECK_EVERY - 1


def test_a_shape_that_writes_what_the_plain_path_refuses_is_dropped() -> None:
    """Nothing is signed, and the shape is not asked again."""
    shapes = SigningShapes(learner=lambda _: learn(DOCUMENT))
    undefined = {("nom" if key == "name" else key): value for key, value in DOCUMENT.items()}
    with pytest.raises(UnsafeDocument):
        shapes.nquads(undefined)
    assert shapes._shapes[outline(undefined)[0]].shape is None


def test_shapes_are_bounded_and_learned_once() -> None:
    """The least recently used goes; an outline without a shape is not learned again and again."""
    learned: list[Mapping[str, Any]] = []

    def learner(document: Mapping[str, Any]) -> Shape:
        learned.append(document)
        if "validUntil" not in document:
            raise NoShape("for the test")
        return learn(document)

    shapes = SigningShapes(capacity=2, learner=learner)
    first, second, third = another(), another(valid_until=None), another(issuer_url=None)
    for document in (first, second, first, second, third, second, third):
        assert shapes.nquads(document) == canonical_nquads(document)
    assert len(learned) == 3
    shapes.nquads(first)
    assert len(learned) == 4
    assert len(shapes._shapes) == 2


def test_threads_share_shapes() -> None:
    """Four at once write what one would have written."""
    shapes = SigningShapes()
    documents = list(islice(hostile_documents.documents(seed=7), 60))
    documents = [document for document in documents if plain(document) is not None]
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(shapes.nquads, documents * 2))
    assert written == [canonical_nquads(document) for document in documents] * 2


FORKED = """
import os, sys
from conferral.services.signing_shapes import SigningShapes, signed_documents
from support.sample_credentials import content, web_issuer
from conferral.domain import vc
shapes, document = SigningShapes(), vc.build(content(web_issuer()))
expected = shapes.nquads(document)
shapes._lock.acquire()
child = os.fork()
if child == 0:
    both = signed_documents.labels("both")._value
    before = both.get()
    right = shapes.nquads(document) == expected
    os._exit(0 if right and both.get() == before + 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_checks_for_itself() -> None:
    """A lock that was held at the fork holds nobody up, and the first document goes both ways again."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FORKED], env=environment, timeout=60, check=False)
    assert done.returncode == 0
