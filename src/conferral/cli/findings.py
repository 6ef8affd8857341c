# SPDX-License-Identifier: Apache-2.0
"""One result of a check: what is so, whether that is well, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, WARNING, BAD = "good", "warning", "bad"


@dataclass(frozen=True)
class Finding:
    """What a check found; `fix` is empty when nothing needs mending.

    `stops` says that starting makes no sense before it is mended.
    """

    check: str
    state: str
    detail: str
    fix: str = ""
    stops: bool = False


def good(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, GOOD, detail)


def warning(check: str, detail: str, fix: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(check, WARNING, detail, fix)


def bad(check: str, detail: str, fix: str, *, stops: bool = False) -> Finding:
    """Something does not work, or is not safe."""
    return Finding(check, BAD, detail, fix, stops)
