# SPDX-License-Identifier: Apache-2.0
"""Signing shapes: canonical N-Quads of documents that differ in their texts only, without JSON-LD.

Expanding JSON-LD is nearly all that signing costs, and it gives the same statements for every document of
one outline: same members, same list lengths, same types. A shape is learned from such an outline with the
plain path (`canonical.canonical_nquads`): every text is replaced by a mark, the statements show where each
mark went, and then every text is changed alone and both ways must agree. Used, it puts texts at their
*places*; it never searches for a value, which may be somebody else's text as well.

A shape is never changed after it was learned, so threads share it. This room must never guess: whatever it
is not sure of has no shape or is given back (None) for the plain path, which stays the definition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyld.nquads import escape, serialize_nquad

from conferral.domain.canonical import (
    Document,
    canonical_nquads,
    is_absolute_iri,
    is_signable_text,
    rdf_statements,
)

__all__ = ["NoShape", "Outline", "Shape", "learn", "outline"]

Outline = tuple[Any, ...]
"""What documents of one shape have in common; hashable, and unambiguous among all documents."""

SCHEMES: Final = ("https", "http", "did", "urn")
"""Schemes of IRIs that a shape writes. JSON-LD reads `name:x` as a shortened IRI if the contexts make `name`
a prefix; learning proves that these four are none. Any other scheme goes the plain way."""
MAX_TEXTS: Final = 60
"""Texts of a document that a shape is learned for; each costs one plain canonicalisation (~3 ms). Ours have
about 25."""

_MARK: Final = "urn:conferral-mark:"
# What the literals are changed to, one by one: everything that N-Quads escapes, and what JSON-LD might read
# as a keyword, a blank node or a shortened IRI if a text were no plain text.
_HOSTILE: Final = '_:b0 @type "x" \\ <urn:a>\t\r\n\u200f\U0001d4b3 '
# Outlines are flat; these stand for brackets and texts, so that no member's name can be mistaken for one.
_OPEN, _CLOSE, _LIST, _TEXT, _WORD = range(5)


class NoShape(ValueError):
    """Documents of this outline have no shape; they are signed the plain way."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One statement: a `%` template, and which cells (texts, then labels of blank nodes) fill it."""

    template: str
    cells: tuple[int, ...]

    def written(self, cells: Sequence[str]) -> str:
        return self.template % tuple([cells[index] for index in self.cells])


@dataclass(frozen=True, slots=True)
class Shape:
    """How documents of one outline are written as canonical N-Quads.

    Attributes:
        iris: positions of the texts that are IRIs.
        literals: positions of all other texts.
        lines: every statement once.
        blank_nodes: for each blank node, the statements that it occurs in.
    """

    iris: tuple[int, ...]
    literals: tuple[int, ...]
    lines: tuple[_Line, ...]
    blank_nodes: tuple[tuple[_Line, ...], ...]

    def nquads(self, texts: Sequence[str]) -> bytes | None:
        """Return what `canonical_nquads` returns for the document that these texts are of.

        Args:
            texts: of a document of this shape's outline, in the order that `outline` gives them.

        Returns:
            Sorted N-Quads; None if only the plain path can tell: a text that it may refuse, statements that
            become equal, or blank nodes that look alike.
        """
        if not self._is_safe(texts):
            return None
        cells = list(texts)
        for position in self.literals:
            cells[position] = escape(cells[position])
        labels = self._labels(cells)
        if labels is None:
            return None
        cells += labels
        written = {line.written(cells) for line in self.lines}
        if len(written) != len(self.lines):
            return None
        return "".join(sorted(written)).encode("utf-8")

    def _is_safe(self, texts: Sequence[str]) -> bool:
        for position in self.iris:
            iri = texts[position]
            if iri.partition(":")[0] not in SCHEMES or not is_absolute_iri(iri):
                return False
        return is_signable_text("".join(texts))

    def _labels(self, cells: Sequence[str]) -> list[str] | None:
        """Return the canonical labels of the blank nodes (RDFC-1.0 4.4, steps 1 to 5); None if two tie."""
        others = ["_:z"] * len(self.blank_nodes)
        hashes = []
        for number, lines in enumerate(self.blank_nodes):
            seen = [*cells, *others]
            seen[len(cells) + number] = "_:a"
            statements = "".join(sorted([line.written(seen) for line in lines]))
            hashes.append(hashlib.sha256(statements.encode("utf-8")).hexdigest())
        ranks = {digest: rank for rank, digest in enumerate(sorted(hashes))}
        if len(ranks) != len(hashes):
            return None
        return [f"_:c14n{ranks[digest]}" for digest in hashes]


def outline(document: Mapping[str, Any]) -> tuple[Outline, list[str]]:
    """Take a document apart: what decides its statements' form, and the texts that fill them.

    The outline holds members, list lengths, `@context`, everything that JSON-LD reads as a word (`type`,
    keywords) and all values that are no texts.
    """
    tokens: list[Any] = []
    texts: list[str] = []
    _walk(document, tokens, texts.append)
    return tuple(tokens), texts


def learn(document: Mapping[str, Any]) -> Shape:
    """Learn the shape of a document's outline; its own texts do not matter. Takes ~0.1 s.

    Raises:
        NoShape: a text goes to several kinds of places, to none, or into a longer value; or the shape
            would not write what the plain path writes.
        UnsafeDocument: the plain path refuses documents of this outline.
    """
    _, texts = outline(document)
    if len(texts) > MAX_TEXTS:
        raise NoShape(f"more than {MAX_TEXTS} texts")
    marks = [f"{_MARK}{position}:" for position in range(len(texts))]
    shape = _shape(rdf_statements(_with_texts(document, marks)), marks)
    for changed in _changes(shape, marks):
        if shape.nquads(changed) != canonical_nquads(_with_texts(document, changed)):
            raise NoShape("a changed text changes more than its places")
    return shape


def _walk(value: Any, tokens: list[Any], take: Callable[[str], None]) -> None:
    if isinstance(value, Mapping):
        tokens.append(_OPEN)
        for key, member in value.items():
            tokens.append(key)
            if _is_word(key):
                _freeze(member, tokens)
            else:
                _walk(member, tokens, take)
        tokens.append(_CLOSE)
    elif isinstance(value, list):
        tokens.append(_LIST)
        for member in value:
            _walk(member, tokens, take)
        tokens.append(_CLOSE)
    elif isinstance(value, str):
        tokens.append(_TEXT)
        take(value)
    else:
        _freeze(value, tokens)


def _is_word(key: str) -> bool:
    return key == "type" or key.startswith("@")


def _freeze(value: Any, tokens: list[Any]) -> None:
    # The type's name keeps 1, 1.0 and true apart, which Python holds for equal.
    tokens += (_WORD, type(value).__name__, repr(value))


def _with_texts(document: Mapping[str, Any], texts: Sequence[str]) -> Document:
    remaining = iter(texts)
    return {key: _replaced(key, member, remaining) for key, member in document.items()}


def _replaced(key: str, value: Any, remaining: Iterator[str]) -> Any:
    if _is_word(key):
        return value
    if isinstance(value, Mapping):
        return {name: _replaced(name, member, remaining) for name, member in value.items()}
    if isinstance(value, list):
        return [_replaced("", member, remaining) for member in value]
    return next(remaining) if isinstance(value, str) else value


def _shape(statements: Sequence[Mapping[str, Any]], marks: Sequence[str]) -> Shape:
    places = {mark: position for position, mark in enumerate(marks)}
    kinds: list[set[str]] = [set() for _ in marks]
    for node in (statement[end] for statement in statements for end in ("subject", "object")):
        if node["value"] in places:
            kinds[places[node["value"]]].add(node["type"])
    if any(len(kind) != 1 for kind in kinds):
        raise NoShape("a text has no place, or places of two kinds")
    labels: dict[str, int] = {}
    lines = [_line(statement, places, labels) for statement in statements]
    return Shape(
        iris=tuple(position for position, kind in enumerate(kinds) if kind == {"IRI"}),
        literals=tuple(position for position, kind in enumerate(kinds) if kind == {"literal"}),
        lines=tuple(lines),
        blank_nodes=tuple(
            tuple(line for line in lines if len(marks) + number in line.cells) for number in labels.values()
        ),
    )


def _line(statement: Mapping[str, Any], places: Mapping[str, int], labels: dict[str, int]) -> _Line:
    """Make one statement's template; blank nodes are numbered in `labels` as they are met."""
    cells: list[int] = []
    template = dict(statement)
    for end in ("subject", "object"):
        node = statement[end]
        if node["type"] == "blank node":
            cells.append(len(places) + labels.setdefault(node["value"], len(labels)))
        elif node["value"] in places:
            cells.append(places[node["value"]])
        else:
            continue
        template[end] = {**node, "value": "\0"}  # no text may hold it, so nothing else is taken for a gap
    written = serialize_nquad(template)
    if _MARK in written:
        raise NoShape("a text is only a part of a value")
    return _Line(written.replace("%", "%%").replace("\0", "%s"), tuple(cells))


def _changes(shape: Shape, marks: Sequence[str]) -> Iterator[list[str]]:
    """Yield the marks with one text changed at a time, then all IRIs under each scheme."""
    for position in shape.literals:
        yield [*marks[:position], _HOSTILE, *marks[position + 1 :]]
    for position in shape.iris:
        yield [*marks[:position], f"{marks[position]}changed", *marks[position + 1 :]]
    for scheme in SCHEMES:
        changed = list(marks)
        for position in shape.iris:
            changed[position] = (
                f"{scheme}:{'//' if scheme.startswith('http') else ''}mark.example:{position}#x"
            )
        yield changed
