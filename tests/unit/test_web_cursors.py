# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conferral.domain.problems import Problem
from conferral.web import cursors


@given(
    st.integers(10**9, 7 * 10**15),
    st.from_regex(r"cred_[0-9A-Z]{26}", fullmatch=True),
)
def test_a_cursor_reads_back_as_the_place_it_was_made_of(microseconds: int, name: str) -> None:
    """To the microsecond: a row more or less on a page would be lost or doubled."""
    place = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds), name)
    assert cursors.read(cursors.write(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "%%%",
        "é",
        "A" * 300,
        base64.urlsafe_b64encode(b"1:a'; drop table").decode(),
        base64.urlsafe_b64encode(b"nine:cred_1").decode(),
        base64.urlsafe_b64encode(b"99999999999999999999999:cred_1").decode(),
        base64.urlsafe_b64encode(b"1:\x00").decode(),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(text: str) -> None:
    """Never an exception of the parser, never a query with somebody's text."""
    with pytest.raises(Problem) as caught:
        cursors.read(text)
    assert caught.value.code == "cursor_invalid"


def test_no_cursor_is_the_first_page() -> None:
    """A list can be begun without one."""
    assert cursors.read(None) is None
    assert cursors.read("") is None
