# SPDX-License-Identifier: Apache-2.0
"""Which fonts certificates are printed with, and which characters they can print.

Form, API and CSV check ask here before a credential is accepted, since a missing glyph is an error under
PDF/A. The system's own fonts are never used: the same input must print the same bytes on every host.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from fontTools.ttLib import TTCollection, TTFont

FONT_PACKAGE = "conferral_fonts"
# What typst reads; it does not read woff.
FONT_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
# Without any font file typst falls back to the families it carries. These are the blocks of Libertinus Serif
# that were printed character by character: Latin, Greek, Cyrillic, Vietnamese, and the punctuation of names.
EMBEDDED_RANGES = (
    (0x0020, 0x007E),
    (0x00A0, 0x024F),
    (0x0300, 0x04FF),
    (0x1E00, 0x1FFF),
    (0x2010, 0x203F),
    (0x20A0, 0x20BF),
)
EMBEDDED_SHA256 = hashlib.sha256(b"typst/0.15.2 embedded fonts").hexdigest()
# Layout instructions rather than signs: they print nothing, so no font has to know them.
_INVISIBLE = frozenset("\u00ad\u034f\u061c\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff")
_VARIATION_SELECTORS = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF), (0x180B, 0x180D))


def font_directories(font_dirs: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Return the package `conferral-fonts` where installed, then the given folders, each once."""
    found = importlib.util.find_spec(FONT_PACKAGE)
    packaged = [Path(place) / "fonts" for place in (found.submodule_search_locations or ())] if found else []
    return tuple(dict.fromkeys(path.resolve() for path in (*packaged, *font_dirs) if path.is_dir()))


class Fonts:
    """The fonts of one installation.

    Args:
        font_dirs: folders besides the package `conferral-fonts`, searched recursively.
        cache_dir: where the coverage is kept, named by the fonts' digest; default
        `$XDG_CACHE_HOME/conferral`.
            A folder that cannot be written costs a second at the first question, nothing else.
    """

    def __init__(self, font_dirs: Sequence[Path] = (), *, cache_dir: Path | None = None) -> None:
        self.directories = font_directories(font_dirs)
        self._cache_dir = cache_dir or _user_cache()
        self._printable: set[str] = set()

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every font file, in the order of its path."""
        found = (path for folder in self.directories for path in folder.rglob("*"))
        return tuple(
            sorted(path for path in found if path.suffix.lower() in FONT_SUFFIXES and path.is_file())
        )

    @cached_property
    def sha256(self) -> str:
        """SHA-256, in hexadecimal, over the sorted (name, SHA-256) of all files."""
        if not self.files:
            return EMBEDDED_SHA256
        lines = sorted(
            f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in self.files
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def unprintable(self, text: str) -> tuple[str, ...]:
        """Return the characters of `text` that no font has, each once, in order of appearance."""
        # A file of 100,000 people asks a million times for the same few hundred characters.
        unknown = [sign for sign in text if sign not in self._printable]
        self._printable.update(sign for sign in unknown if self._prints(sign))
        return tuple(dict.fromkeys(sign for sign in unknown if sign not in self._printable))

    def _prints(self, sign: str) -> bool:
        code = ord(sign)
        if sign in _INVISIBLE or any(first <= code <= last for first, last in _VARIATION_SELECTORS):
            return True
        if unicodedata.category(sign) in {"Cc", "Cn", "Cs"}:
            return False
        place = bisect_right(self._coverage, (code, 0x110000)) - 1
        return place >= 0 and self._coverage[place][0] <= code <= self._coverage[place][1]

    @cached_property
    def _coverage(self) -> tuple[tuple[int, int], ...]:
        if not self.files:
            return EMBEDDED_RANGES
        cached = self._cache_dir / f"coverage-{self.sha256}.json"
        with contextlib.suppress(OSError, ValueError, TypeError):
            return tuple((int(first), int(last)) for first, last in json.loads(cached.read_text()))
        ranges = _ranges(code for path in self.files for code in _characters(path))
        with contextlib.suppress(OSError):
            _write_beside(cached, json.dumps(ranges))
        return ranges


def _characters(path: Path) -> set[int]:
    if path.suffix.lower() in {".ttc", ".otc"}:
        # One file, several families with the same characters and different default shapes.
        with TTCollection(path, lazy=True) as collection:
            return set().union(*(font.getBestCmap() or {} for font in collection.fonts))
    with TTFont(path, lazy=True) as font:
        return set(font.getBestCmap() or {})


def _ranges(codes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for code in sorted(set(codes)):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return tuple(ranges)


def _user_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(root) / "conferral"


def _write_beside(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=".coverage-")
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    Path(beside).replace(target)
