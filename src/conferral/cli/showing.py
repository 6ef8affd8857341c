# SPDX-License-Identifier: Apache-2.0
"""How commands speak: results on stdout, remarks on stderr; JSON is one object a line and nothing else."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TextIO

GREEN, YELLOW, RED, DIM = 32, 33, 31, 2
_GAP = "  "
_NOTHING = "-"


def emit(record: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of stdout, at once."""
    sys.stdout.write(json.dumps(record, ensure_ascii=False, default=_plain) + "\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """Print a line beside the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def painted(text: str, colour: int, *, on: TextIO | None = None) -> str:
    """Return a text in a colour, where colours are shown and wanted."""
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colour(on or sys.stdout) else text


def has_colour(stream: TextIO) -> bool:
    """Whether escape codes may be written there; see no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def rows(header: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Print a table in columns that are as wide as they need to be."""
    texts = [[_cell(value) for value in line] for line in lines]
    widths = [max(width(line[place]) for line in (list(header), *texts)) for place in range(len(header))]
    for number, line in enumerate((list(header), *texts)):
        padded = _GAP.join(text + " " * (widths[place] - width(text)) for place, text in enumerate(line))
        say(painted(padded.rstrip(), DIM) if number == 0 else padded.rstrip())


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def moment(at: datetime | None) -> str:
    """Return a time in UTC as people read it."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at is not None else _NOTHING


def ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago something was, roughly.

    >>> from datetime import UTC, timedelta
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> ago(now - timedelta(seconds=90), now)
    '1 min ago'
    """
    if at is None:
        return "never"
    seconds = max(0, int((now - at).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return moment(value)
    return _NOTHING if value is None or value == "" else str(value)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
