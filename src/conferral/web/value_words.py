# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a value, in words for whoever sent it: what is expected, never what was sent.

Pydantic's own texts name our classes and patterns, which help nobody outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_TEXT, _WHOLE, _NUMBER = "expected a text", "expected a whole number", "expected a number"
_SWITCH, _TIME = "expected true or false", "expected a time with its zone, such as 2026-06-30T12:00:00Z"
_WORDS: Final[Mapping[str, str]] = {
    "missing": "it is missing; give it",
    "extra_forbidden": "there is nothing of this name here; remove it, or correct its name",
    "string_type": _TEXT,
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} character(s)",
    "string_pattern_mismatch": "it holds a character that is not allowed here",
    "dict_type": "expected an object",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
    "list_type": "expected a list",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entry",
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "expected {expected}",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": _TIME,
}


def said(found: Mapping[str, Any]) -> str:
    """Return the words for one error of pydantic."""
    words = _WORDS.get(found["type"])
    if words is None:
        return str(found["msg"])
    return words.format_map(found.get("ctx", {}))
