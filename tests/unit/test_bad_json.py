# SPDX-License-Identifier: Apache-2.0
"""The strict reader of JSON: what it takes is what RFC 8259 means, what it refuses it explains."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conferral.domain.problems import Problem
from conferral.web.json_body import parse

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_an_object_is_read_as_it_was_written(document: dict[str, object]) -> None:
    """With and without a byte order mark."""
    body = json.dumps(document, ensure_ascii=False).encode()
    assert parse(body) == document
    assert parse(b"\xef\xbb\xbf" + body) == document


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_nothing_but_a_problem_is_raised(body: bytes) -> None:
    """Whatever comes: an object, or a code and a sentence."""
    try:
        assert isinstance(parse(body), dict)
    except Problem as problem:
        refused = problem
        assert (refused.code, bool(refused.detail)) == ("json_invalid", True)


@pytest.mark.parametrize("body", [b'{"a": 1, "a": 1}', b'[{"b": {"a": 1, "c": 2, "a": 3}}]'])
def test_a_name_twice_is_refused_wherever_it_stands(body: bytes) -> None:
    """Two readers would see two credentials."""
    with pytest.raises(Problem, match='"a" stands twice'):
        parse(body)


def test_a_name_is_shown_without_its_tricks() -> None:
    """A name is somebody else's text."""
    with pytest.raises(Problem) as caught:
        parse('{"\\u001b[2J\u202e": 1, "\\u001b[2J\u202e": 2}'.encode())
    assert '"?[2J?" stands twice' in caught.value.detail
