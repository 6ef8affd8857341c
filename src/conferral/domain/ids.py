# SPDX-License-Identifier: Apache-2.0
"""Prefixed ids of the product: `cred_01K…`: time-sortable, unguessable enough to be no counter.

The text is a UUIDv7's 128 bits in Crockford's base 32 (26 characters), so ids sort by time.
Ids are names, never authority: whoever knows one still needs a key that may see it.
"""

from __future__ import annotations

import re
from typing import Final

PREFIXES: Final = frozenset(
    "org usr key tpl tpv cred bat chg dlv doc evt whe sgk msg rpt aud".split()  # noqa: SIM905 - a readable list
)
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PATTERN: Final = re.compile(r"[a-z]{3,4}_[0-9A-HJKMNP-TV-Z]{26}")


def prefixed(prefix: str, value: int) -> str:
    """Return `<prefix>_<26 characters>` for 128 bits.

    >>> prefixed("cred", 0)
    'cred_00000000000000000000000000'
    """
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix {prefix}")
    digits = [_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def is_id(text: str, prefix: str) -> bool:
    """Return whether a text is an id of that kind."""
    return text.startswith(prefix + "_") and _PATTERN.fullmatch(text) is not None
