# SPDX-License-Identifier: Apache-2.0
"""The gallery of designs: which there are, what data and theme each takes, its versions on this host.

A version is the SHA-256 of a design's source and its theme; credentials pin theirs. Versions are directories
that are written beside, renamed and never changed, so that any number of processes may materialise the same
one.

What a design is given (`sys.inputs.data`, one JSON object)::

    credential   id, recipient_name, organisation_name, verification_url, issued_on (dates: YYYY-MM-DD);
                 optional: expires_on, description, and the design's own fields (`fields_of`)
    language     BCP 47, "en" unless given
    qr           SVG text of the QR symbol (`conferral.adapters.qr`)
    test_mode    true prints a watermark
    theme        optional: replaces the version's own theme (a live preview); issuing leaves it out
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from conferral.adapters import guilloche, theme_schema
from conferral.adapters.theme_schema import ThemeRefused

__all__ = [
    "DesignUnknown",
    "Field",
    "ThemeRefused",
    "default_theme",
    "design_names",
    "fields_of",
    "materialise",
    "sample_of",
    "theme_schema_of",
    "validate_theme",
    "version_of",
]

SHARED = "_shared"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
# Only what typst reads; the rest of a design's folder serves forms and previews.
_SOURCE_SUFFIXES = frozenset({".typ", ".svg", ".png", ".jpg"})
_SOURCE_NAMES = frozenset({"wording.json"})


class DesignUnknown(LookupError):
    """There is no design of this name."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a design's data: what forms, the API and CSV columns offer and check."""

    id: str
    label: str
    kind: Literal["text", "date"]
    required: bool
    max_characters: int


@cache
def design_names() -> tuple[str, ...]:
    """Return the names of the built-in designs, the first one to offer first."""
    found = sorted(
        entry.name for entry in _designs().iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir()
    )
    return tuple(sorted(found, key=lambda name: name != "diploma"))


@cache
def fields_of(design: str) -> tuple[Field, ...]:
    """Return the data fields of a design, in the order of its form."""
    return tuple(Field(**field) for field in _document(design, "design.json")["fields"])


def sample_of(design: str) -> dict[str, Any]:
    """Return data to show the design with; it follows the data contract above."""
    return _document(design, "sample.json")


def theme_schema_of(design: str) -> dict[str, Any]:
    """Return the JSON Schema of the design's theme, for forms and the API's documentation."""
    return _document(design, "theme.schema.json")


def default_theme(design: str) -> dict[str, Any]:
    """Return the theme of an organisation that has changed nothing."""
    return validate_theme(design, {})


def validate_theme(design: str, theme: Mapping[str, Any]) -> dict[str, Any]:
    """Return the theme with its defaults filled in; unknown keys are refused.

    Raises:
        DesignUnknown: no such design.
        ThemeRefused: every problem with its path.
    """
    completed: dict[str, Any] = theme_schema.complete(_document(design, "theme.schema.json"), dict(theme))
    return completed


def version_of(design: str, theme: Mapping[str, Any]) -> str:
    """Return the version's name: SHA-256, in hexadecimal, of the design's source and the completed theme."""
    return _digest(_version_files(design, theme))


def materialise(templates_dir: Path, design: str, theme: Mapping[str, Any]) -> str:
    """Write the version's directory under `templates_dir` unless it is there; return its name."""
    contents = _version_files(design, theme)
    version = _digest(contents)
    target = templates_dir / version
    if target.is_dir():
        return version
    templates_dir.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=templates_dir, prefix=".new-"))
    try:
        for name, content in contents.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o444)
        beside.chmod(0o755)
        os.rename(beside, target)  # noqa: PTH104 - never replaces a directory that holds files
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        if not target.is_dir():
            raise
    return version


def _version_files(design: str, theme: Mapping[str, Any]) -> dict[str, bytes]:
    completed = validate_theme(design, theme)
    text = json.dumps(completed, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    motif = {f"motif/{name}": content for name, content in _motif(text).items()}
    return {**_source(SHARED, ""), **_source(design, "design/"), **motif, "theme.json": text.encode()}


@lru_cache(maxsize=64)
def _motif(theme_json: str) -> dict[str, bytes]:
    return {name: text.encode() for name, text in guilloche.drawings(json.loads(theme_json)).items()}


def _digest(contents: Mapping[str, bytes]) -> str:
    lines = (f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(contents.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def _source(folder: str, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for entry in _designs().joinpath(folder).iterdir():
        if PurePosixPath(entry.name).suffix in _SOURCE_SUFFIXES or entry.name in _SOURCE_NAMES:
            found[prefix + entry.name] = entry.read_bytes()
    return found


def _document(design: str, name: str) -> dict[str, Any]:
    if design not in design_names():
        raise DesignUnknown(f"there is no design {design!r}; there are {', '.join(design_names())}")
    return json.loads(_text(design, name))  # type: ignore[no-any-return]


@cache
def _text(design: str, name: str) -> str:
    content: str = _designs().joinpath(design, name).read_text(encoding="utf-8")
    return content


def _designs() -> Any:
    return files("conferral.designs")
