# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from conferral.domain import canonical, vc
from conferral.domain.canonical import UnsafeDocument, canonical_nquads, jcs, read_document
from support import sample_credentials

# SHA-256 of the JCS form of the objects, as the npm packages of others carry them.
CONTENT_HASHES = {
    canonical.VC_V2: "b463c8d6a066214123ddd9827b135e1b50e1fc73322cc52a9b12a4f1fc7d86cf",
    canonical.OPEN_BADGES_3_0_3: "c5e555a91a5cf48e32ae0a05674c61ddd5c053b680b5643b2f57f9965e386d99",
}


def _unsigned() -> dict[str, Any]:
    return vc.build(sample_credentials.content(sample_credentials.web_issuer()))


@pytest.mark.parametrize("url", CONTENT_HASHES)
def test_contexts_are_the_objects_that_other_implementations_carry(url: str) -> None:
    """Our vendored contexts mean what foreign verifiers read, whatever their white space."""
    assert hashlib.sha256(rfc8785.dumps(canonical.CONTEXTS[url])).hexdigest() == CONTENT_HASHES[url]
    assert json.loads(canonical.context_bytes(url)) == canonical.CONTEXTS[url]


def test_a_changed_context_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A context file that is not the pinned text is noticed before anything is signed."""
    name, _ = canonical._PINNED[canonical.VC_V2]
    monkeypatch.setitem(canonical._PINNED, canonical.VC_V2, (name, "00" * 32))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not the pinned text"):
        canonical._load_contexts()


def test_canonical_form_does_not_depend_on_member_order() -> None:
    """A wallet may reorder members without losing the signature."""
    document = _unsigned()
    reversed_members = dict(reversed(document.items()))
    assert canonical_nquads(document) == canonical_nquads(reversed_members)
    assert jcs(document) == jcs(reversed_members)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("courseHours", "12"),
        ("type", ["VerifiableCredential", "OpenBadgeCredential", "Kurs"]),
        ("@graph", []),
        ("@included", [{"id": "urn:x:y"}]),
        ("evidence", []),
        ("evidence", [[{"id": "urn:x:y", "type": ["Evidence"]}]]),
        ("description", None),
        ("description", {"@value": "text", "@language": "no such tag"}),
        ("description", {"@language": "en"}),
        ("description", {"@value": "text", "@direction": "rtl"}),
        ("description", "control \x0b character"),
        ("description", "lone \ud800 surrogate"),
        ("description", "delete \x7f"),
        ("@context", []),
        ("@context", "https://www.w3.org/ns/credentials/v3"),
        ("@context", [canonical.VC_V2, {"@vocab": "https://example.org/#"}]),
        ("issuer", {"id": "not an iri", "type": ["Profile"]}),
        ("issuer", {"id": "relative", "type": ["Profile"]}),
        ("issuer", {"id": "_:b0", "type": ["Profile"]}),
        ("issuer", {"id": "https://example.org/a b", "type": ["Profile"]}),
        ("issuer", {"id": "https://example.org/<x>", "type": ["Profile"]}),
        ("issuer", {"id": "https://example.org", "@context": canonical.VC_V2}),
        ("credentialSubject", {"type": ["AchievementSubject"], "grade": {"@type": "x"}}),
    ],
)
def test_nothing_unsigned_gets_in_when_a_document_is_unsafe(member: str, value: object) -> None:
    """Whatever the library would silently drop is refused, at signing and at verifying."""
    document = {**_unsigned(), member: value}
    with pytest.raises(UnsafeDocument):
        canonical_nquads(document)


def test_a_document_with_language_tagged_text_is_read() -> None:
    """VC 2.0 language values are legitimate."""
    document = {**_unsigned(), "description": {"@value": "Statistik", "@language": "de"}}
    assert b'"Statistik"@de' in canonical_nquads(document)


@pytest.mark.parametrize("text", ["\n", "\t", '"', "\\", "٣ عربي", "\U0001d4b3", "\u2028", "é"])
def test_texts_of_any_script_survive(text: str) -> None:
    """Names and narratives in any script, with quotes and line breaks, are signed as they are."""
    document = {**_unsigned(), "name": f"a{text}b"}
    escaped = f"a{text}b".replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    assert f'"{escaped}"'.encode() in canonical_nquads(document).replace(b"\\t", b"\t")


def test_nesting_and_size_are_limited() -> None:
    """A hostile document costs a bounded effort."""
    deep: Any = "x"
    for _ in range(40):
        deep = {"evidence": deep}
    with pytest.raises(UnsafeDocument, match="nested"):
        canonical_nquads({**_unsigned(), "evidence": deep})
    many = [{"id": f"urn:x:{number}", "type": ["Profile"], "name": "x"} for number in range(190)]
    with pytest.raises(UnsafeDocument, match="statements"):
        canonical_nquads({**_unsigned(), "issuer": many})


@pytest.mark.parametrize(
    "value", [[str(number) for number in range(20_000)], [{"type": ["Evidence"]} for _ in range(8_000)]]
)
def test_a_long_list_is_refused_before_it_costs_quadratic_time(value: list[Any]) -> None:
    """256 KiB of short texts kept the JSON-LD library busy for 90 seconds; now nothing is expanded."""
    began = time.process_time()
    with pytest.raises(UnsafeDocument, match="values"):
        canonical_nquads({**_unsigned(), "name": value})
    assert time.process_time() - began < 0.5


def test_a_poisoned_graph_is_given_up() -> None:
    """Blank nodes that look alike would take exponential time; the work is bounded instead."""
    identity = {"type": "IdentityObject", "identityType": "name", "hashed": False, "identityHash": "same"}
    alike = {"type": ["AchievementSubject"], "identifier": [identity] * 12}
    began = time.process_time()
    with pytest.raises(UnsafeDocument, match="symmetric"):
        canonical_nquads({**_unsigned(), "credentialSubject": [alike, alike]})
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"{" + b" " * canonical.MAX_DOCUMENT_BYTES + b"}",
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b"",
    ],
)
def test_loose_json_is_refused(data: bytes) -> None:
    """Two readers can never read two things in one file."""
    with pytest.raises(UnsafeDocument):
        read_document(data)


PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.dictionaries(st.text(), PLAIN_JSON | st.integers(-9, 9) | st.floats(-1, 1)))
def test_jcs_is_what_its_library_writes(document: dict[str, object]) -> None:
    """The short way for documents without numbers gives the library's bytes."""
    assert jcs(document) == rfc8785.dumps(document)


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x2FF)))
def test_jcs_escapes_as_its_library_does(text: str) -> None:
    """Control characters, quotes and backslashes in texts and in member names."""
    assert jcs({text: text, "plain": text}) == rfc8785.dumps({text: text, "plain": text})


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_jcs_refuses_what_has_no_utf_8(text: str) -> None:
    """A lone surrogate is no text, wherever it stands."""
    for document in ({"a": text}, {"a": [text]}, {text: "a"}):
        with pytest.raises(UnsafeDocument):
            jcs(document)


def test_jcs_refuses_numbers_that_json_cannot_carry() -> None:
    """A number that another reader rounds is not signed."""
    with pytest.raises(UnsafeDocument):
        jcs({"a": 2**60})
    with pytest.raises(UnsafeDocument):
        jcs({"a": float("nan")})
