# SPDX-License-Identifier: Apache-2.0
"""What all tables share: one MetaData, and how a column is bound to a few words."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData()

MODES = ("live", "test")


def one_of(column: str, values: tuple[str, ...]) -> str:
    """Return the condition that a column holds one of a few words.

    >>> one_of("mode", ("live", "test"))
    "mode IN ('live', 'test')"
    """
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
