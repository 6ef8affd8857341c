# SPDX-License-Identifier: Apache-2.0
"""Opaque cursors over (created_at, id): where the next page begins, and nothing anybody may rely on."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from conferral.domain.problems import Problem
from conferral.store.records import Record

Place = tuple[datetime, str]

MOST_CHARACTERS: Final = 200
DEFAULT_LIMIT: Final = 50
MOST_LIMIT: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def write(place: Place) -> str:
    """Return the cursor of a place.

    >>> read(write((datetime(2026, 1, 1, tzinfo=UTC), "cred_1")))[1]
    'cred_1'
    """
    moment, last = place
    text = f"{(moment - _EPOCH) // _MICROSECOND}:{last}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str | None) -> Place | None:
    """Return the place of a cursor.

    Raises:
        Problem: `cursor_invalid`.
    """
    if not cursor:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, _, last = (
            base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
        )
        place = (_EPOCH + int(moment) * _MICROSECOND, last)
    except (ValueError, OverflowError):
        place = None
    if place is None or len(cursor) > MOST_CHARACTERS or not place[1].replace("_", "").isalnum():
        raise Problem("cursor_invalid", "take the cursor from next_cursor of the page before")
    return place


def page(
    rows: Sequence[Record],
    limit: int,
    wire: Callable[[Record], dict[str, Any]],
    *,
    moment: str = "created_at",
) -> dict[str, Any]:
    """Return `{data, next_cursor, has_more}` of rows that were fetched with one more than the limit."""
    shown = rows[:limit]
    has_more = len(rows) > limit
    last = shown[-1] if has_more else None
    return {
        "data": [wire(row) for row in shown],
        "next_cursor": write((getattr(last, moment), last.id)) if last is not None else None,
        "has_more": has_more,
    }
