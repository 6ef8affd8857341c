# SPDX-License-Identifier: Apache-2.0
"""The JSON of a request: read strictly, refused with the place and the reason.

Python's reader takes more than RFC 8259 does, and the last of two equal names. What is unclear is refused
here: a value that two programs read differently would be in a signed credential.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from conferral.domain.problems import Problem

# What costs most memory for its bytes. A batch of 10,000 rows has 30,001 objects and some 260,000 texts.
MOST_CONTAINERS: Final = 100_000
MOST_TEXTS: Final = 300_000
MOST_DIGITS: Final = 30  # of a number; none of ours has more than ten
_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN: Final = 60  # characters of somebody else's name


def parse(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        Problem: `json_invalid` with line and column, or what else is wrong.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8: byte {error.start + 1} is wrong") from None
    if not text.strip():
        raise _invalid("the body is empty; send one JSON object")
    if text.count("{") + text.count("[") > MOST_CONTAINERS:
        raise _invalid(f"the body holds more than {MOST_CONTAINERS:,} objects and lists")
    if text.count('"') > 2 * MOST_TEXTS:
        raise _invalid(f"the body holds more than {MOST_TEXTS:,} names and texts")
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_whole,
            parse_float=_decimal,
        )
    except json.JSONDecodeError as error:
        raise _invalid(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise _invalid("the body is nested too deeply") from None
    if _ESCAPED_SURROGATE.search(text):
        _refuse_halves(document)
    if not isinstance(document, dict):
        raise _invalid("the body is not a JSON object; send {…}")
    return document


def _invalid(detail: str) -> Problem:
    return Problem("json_invalid", detail)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                shown = "".join(sign if sign.isprintable() else "?" for sign in name[:_SHOWN])
                raise _invalid(f'the member "{shown}" stands twice in one object; keep one of them')
            seen.add(name)
    return found


def _whole(text: str) -> int:
    _refuse_long(text)
    return int(text)


def _decimal(text: str) -> float:
    _refuse_long(text)
    return float(text)


def _refuse_long(text: str) -> None:
    if len(text) > MOST_DIGITS:
        raise _invalid(f"a number has more than {MOST_DIGITS} digits")


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid(f"{name} is no JSON; send a number, or null")


def _refuse_halves(document: Any) -> None:
    """What cannot be written as UTF-8 would fail later, and worse."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _invalid("a text holds half of a surrogate pair (\\ud800 to \\udfff)") from None
