# SPDX-License-Identifier: Apache-2.0
"""What is hashed before it is signed: strict JSON, RFC 8785 (JCS) and RDFC-1.0.

Every byte that a reader might believe must be covered by the signature. PyLD silently drops what it does
not understand, so this room checks what PyLD does not: known contexts only, no dropped term, only absolute
IRIs, nothing that has no triple (null, empty array). It must never fetch anything: the vendored contexts are
the whole world, pinned by hash when this module is imported.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from itertools import islice
from typing import Any, NoReturn

import rfc8785
from pyld import jsonld
from pyld.canon import URDNA2015
from pyld.context_resolver import ContextResolver

Document = dict[str, Any]

VC_V2 = "https://www.w3.org/ns/credentials/v2"
VC_V1 = "https://www.w3.org/2018/credentials/v1"
OPEN_BADGES_3_0_3 = "https://purl.imsglobal.org/spec/ob/v3p0/context-3.0.3.json"
DATA_INTEGRITY_V1 = "https://w3id.org/security/data-integrity/v1"
DATA_INTEGRITY_V2 = "https://w3id.org/security/data-integrity/v2"

ISSUED_CONTEXTS = (VC_V2, OPEN_BADGES_3_0_3)
"""The contexts of what we issue, in this order. Everything else in the map is for verifying only."""

# file, SHA-256 of its text
_PINNED: Mapping[str, tuple[str, str]] = {
    VC_V2: ("credentials-v2.jsonld", "59955ced6697d61e03f2b2556febe5308ab16842846f5b586d7f1f7adec92734"),
    OPEN_BADGES_3_0_3: (
        "open-badges-3.0.3.jsonld",
        "ef2fa9c7846dce233cc166b43639027278be4ee44f00bb1d45c75de2dd0cd761",
    ),
    VC_V1: ("credentials-v1.jsonld", "ab4ddd9a531758807a79a5b450510d61ae8d147eab966cc9a200c07095b0cdcc"),
    DATA_INTEGRITY_V1: (
        "data-integrity-v1.jsonld",
        "b5d829bd09aa7c42abc6efa0c8ed7635313b5487f37ccfce3ecd149ca9418554",
    ),
    DATA_INTEGRITY_V2: (
        "data-integrity-v2.jsonld",
        "0f77743daf5b4e8fc067fc5ba5b21044283053aa717fc6b0219843bed3b00363",
    ),
}

MAX_DOCUMENT_BYTES = 256 * 1024
"""Foreign JSON is hostile. A status list of 131,072 random bits, the largest thing we read, is 22 KB."""
MAX_DEPTH = 24
"""Nesting of a document; a full Open Badge has 7 levels, and the libraries recurse."""
MAX_QUADS = 500
"""RDF statements of a document; ours have about 40."""
MAX_VALUES = 1_000
"""JSON values of a document, counted before JSON-LD sees them: expansion takes quadratic time (20,000 names
in one array cost 90 s before the statements could be counted). Ours have about 60."""
MAX_CANONICAL_WORK = 5_000
"""Orders tried for blank nodes that look alike. Ours need none; poisoned graphs need exponentially many."""

# White space beyond ASCII as well: PyLD drops every statement about such an IRI without a word, so whatever a
# stranger said about it would pass for signed. jsonld.js holds U+FEFF for white space, too.
_ABSOLUTE_IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x20<>\"{}|\\^`\x7f\ufeff]*")
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
# Control characters that PyLD does not escape as RDFC-1.0 wants, and lone surrogates, which have no UTF-8.
_UNSIGNABLE_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# PyLD resolves relative IRIs against http://example.org/base/ when it is given no base or an empty one, and
# an undefined type would pass for an absolute IRI. This base cannot be mistaken for anybody's.
_NO_BASE = "relative-iri://undefined/"
_VALUE_KEYWORDS = frozenset({"@value", "@language"})


_WRITE_PLAIN = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


class UnsafeDocument(ValueError):
    """The document holds something that a signature would not cover."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def read_document(data: bytes) -> Document:
    """Parse one JSON object strictly.

    Args:
        data: UTF-8 JSON of at most `MAX_DOCUMENT_BYTES`; a byte order mark is refused.

    Raises:
        UnsafeDocument: not an object, too large, too deep, a repeated member name, NaN or Infinity.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UnsafeDocument("the document is larger than 256 KiB")
    try:
        document = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )
    except UnsafeDocument:
        raise
    except (ValueError, RecursionError):
        raise UnsafeDocument("the document is not JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise UnsafeDocument("the document is not a JSON object")
    return document


def jcs(document: Mapping[str, Any]) -> bytes:
    """Serialise by RFC 8785: one spelling for one document, UTF-8, no newline.

    Raises:
        UnsafeDocument: numbers or text that JSON cannot carry exactly.
    """
    try:
        if _is_plain(document):
            return _WRITE_PLAIN(dict(document)).encode("utf-8")
        return rfc8785.dumps(dict(document))
    except (ValueError, RecursionError, TypeError):
        raise UnsafeDocument("the document has no canonical JSON form") from None


def _is_plain(value: Any) -> bool:
    """Tell whether `json` writes a value as RFC 8785 wants, four times as fast.

    It does for everything but numbers, and member names that UTF-16 sorts otherwise than Python.
    """
    kind = type(value)
    if kind is dict:
        return all(
            type(key) is str and key.isascii() and (type(member) is str or _is_plain(member))
            for key, member in value.items()
        )
    if kind is list:
        return all(map(_is_plain, value))
    return kind is str or kind is bool or value is None


def canonical_nquads(document: Mapping[str, Any], *, contexts: Mapping[str, Document] | None = None) -> bytes:
    """Canonicalise by RDFC-1.0 (SHA-256) after proving that nothing is dropped.

    Args:
        document: JSON-LD without its proof.
        contexts: what the loader may serve; the vendored contexts unless a test adds one.

    Returns:
        Sorted N-Quads, each ended by a newline.

    Raises:
        UnsafeDocument: unknown context or term, type or id that is no absolute IRI, null, empty array,
            control characters, or a graph that is too large or too symmetric.
    """
    known = CONTEXTS if contexts is None else contexts
    with _only_sound_json_ld():
        dataset = _dataset(document, known, is_vendored=contexts is None)
        text: str = _BoundedCanonicalisation().main(dataset, {"format": "application/n-quads"})
    return text.encode("utf-8")


def rdf_statements(document: Mapping[str, Any]) -> list[Document]:
    """Return a document's RDF statements as PyLD writes them, with the checks of `canonical_nquads`.

    Raises:
        UnsafeDocument: as `canonical_nquads`; also if a statement stands in a named graph.
    """
    with _only_sound_json_ld():
        dataset = _dataset(document, CONTEXTS, is_vendored=True)
    if dataset.keys() != {"@default"}:
        raise UnsafeDocument("the document has a named graph")
    return list(dataset["@default"])


@contextmanager
def _only_sound_json_ld() -> Iterator[None]:
    try:
        yield
    except jsonld.JsonLdError as error:
        raise UnsafeDocument(f"the document is not sound JSON-LD ({_innermost_code(error)})") from None
    except (RecursionError, TypeError, AttributeError, KeyError, IndexError):
        # The library is not written for hostile input; whatever it stumbles over is not signed.
        raise UnsafeDocument("the document is not sound JSON-LD") from None


def _dataset(
    document: Mapping[str, Any], known: Mapping[str, Document], *, is_vendored: bool
) -> dict[str, list[Document]]:
    _refuse_unsafe(document, known)
    dataset: dict[str, list[Document]] = _StrictProcessor().to_rdf(
        dict(document), _options(known, is_vendored=is_vendored)
    )
    quads = sum(len(triples) for triples in dataset.values())
    if quads > MAX_QUADS:
        raise UnsafeDocument(f"the document makes {quads} statements; at most {MAX_QUADS} are read")
    return dataset


def is_absolute_iri(text: object) -> bool:
    """Tell whether this is an absolute IRI by the strict reading: a scheme, and no character IRIs exclude."""
    return isinstance(text, str) and _ABSOLUTE_IRI.fullmatch(text) is not None


def is_signable_text(text: str) -> bool:
    """Tell whether every character of a text survives canonicalisation in all implementations."""
    return _UNSIGNABLE_TEXT.search(text) is None


def _load_contexts() -> dict[str, Document]:
    folder = resources.files("conferral.domain") / "contexts"
    loaded: dict[str, Document] = {}
    for url, (name, pinned) in _PINNED.items():
        text = (folder / name).read_bytes()
        found = hashlib.sha256(text).hexdigest()
        if found != pinned:
            raise RuntimeError(f"context {name} is not the pinned text: {found}; reinstall Conferral")
        loaded[url] = json.loads(text)
    return loaded


CONTEXTS: Mapping[str, Document] = _load_contexts()


def context_bytes(url: str) -> bytes:
    """Return the vendored text of one context, for the proof bundle."""
    return (resources.files("conferral.domain") / "contexts" / _PINNED[url][0]).read_bytes()


def _refuse_unsafe(document: Mapping[str, Any], known: Mapping[str, Document]) -> None:
    urls = named if isinstance(named := document.get("@context"), list) else [named]
    if not urls or not all(isinstance(url, str) and url in known for url in urls):
        raise UnsafeDocument("the document names a context that is not one of the vendored ones")
    if sum(1 for _ in islice(_values(document), MAX_VALUES + 1)) > MAX_VALUES:
        raise UnsafeDocument(f"the document holds more than {MAX_VALUES} values")
    for key, value in document.items():
        if key == "verifiableCredential":
            _refuse_unsafe_presented(value, known)
        elif key != "@context":
            _refuse_unsafe_member(key, value, 1)


def _refuse_unsafe_presented(value: Any, known: Mapping[str, Document]) -> None:
    # Every credential of a presentation is held to the same rules; each names its own contexts.
    for presented in value if isinstance(value, list) and value else [value]:
        if not isinstance(presented, Mapping) or "verifiableCredential" in presented:
            raise UnsafeDocument("a presentation holds something that is no credential")
        _refuse_unsafe(presented, known)


def _refuse_unsafe_member(key: str, value: Any, depth: int) -> None:
    if key.startswith("@") and key not in _VALUE_KEYWORDS:
        raise UnsafeDocument(f"the keyword {key[:20]} may not stand inside a document")
    if not is_signable_text(key):
        raise UnsafeDocument("a member name holds a control character")
    if key == "@language" and not (isinstance(value, str) and _LANGUAGE_TAG.fullmatch(value)):
        raise UnsafeDocument("a language tag is malformed")
    _refuse_unsafe_value(value, depth)


def _refuse_unsafe_value(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise UnsafeDocument(f"the document is nested deeper than {MAX_DEPTH} levels")
    if value is None or value == []:
        raise UnsafeDocument("null and empty arrays are not covered by a signature")
    if isinstance(value, dict):
        _refuse_unsafe_object(value, depth)
    elif isinstance(value, list):
        if any(isinstance(member, list) for member in value):
            raise UnsafeDocument("an array stands directly inside an array")
        for member in value:
            _refuse_unsafe_value(member, depth + 1)
    elif not isinstance(value, str | int | float):
        raise UnsafeDocument(f"a {type(value).__name__} is not JSON")
    elif isinstance(value, str) and not is_signable_text(value):
        raise UnsafeDocument("a text holds a control character or a lone surrogate")


def _refuse_unsafe_object(value: Mapping[str, Any], depth: int) -> None:
    if _VALUE_KEYWORDS & value.keys() and not isinstance(value.get("@value"), str):
        raise UnsafeDocument("a language-tagged value holds no text")
    for key, member in value.items():
        _refuse_unsafe_member(key, member, depth + 1)


def _refuse_relative_iris(expanded: Any) -> None:
    for key, value in _members(expanded):
        iris = value if isinstance(value, list) else [value]
        if key == "@type" and iris == ["@json"]:
            continue
        if key not in {"@id", "@type"}:
            continue
        if not all(is_absolute_iri(iri) and not iri.startswith("relative-iri:") for iri in iris):
            raise UnsafeDocument(f"an {key} is not an absolute IRI; is the term defined in the contexts?")


def _members(expanded: Any) -> Iterator[tuple[str, Any]]:
    pending = [expanded]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, Mapping):
            yield from node.items()
            pending.extend(node.values())


def _values(document: Any) -> Iterator[Any]:
    pending = [document]
    while pending:
        value = pending.pop()
        yield value
        if isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _refuse_dropped(term: object) -> NoReturn:
    raise UnsafeDocument(f"the term {str(term)[:60]!r} is not defined in the contexts")


class _StrictProcessor(jsonld.JsonLdProcessor):  # type: ignore[misc]
    """PyLD with the safe mode it lacks."""

    def __init__(self) -> None:
        super().__init__(on_property_dropped=_refuse_dropped)

    def expand(self, input_: Any, options: Any) -> Any:
        expanded = super().expand(input_, options)
        _refuse_relative_iris(expanded)
        return expanded


class _BoundedCanonicalisation(URDNA2015):  # type: ignore[misc]
    """RDFC-1.0 that gives up on graphs built to exhaust it."""

    def __init__(self) -> None:
        super().__init__()
        self._work = 0

    def create_hash_to_related(self, id_: Any, issuer: Any) -> Any:
        related = super().create_hash_to_related(id_, issuer)
        # A group of n alike nodes costs n! orders; beyond 10! no count is needed to refuse.
        self._work += 1 + sum(math.factorial(min(len(nodes), 10)) for nodes in related.values())
        if self._work > MAX_CANONICAL_WORK:
            raise UnsafeDocument("the document's graph is too symmetric to canonicalise")
        return related


class _ThreadResolver(threading.local):
    """One context cache a thread: the library's shared one is not safe among threads."""

    resolver: Any = None


_thread = _ThreadResolver()


def _options(known: Mapping[str, Document], *, is_vendored: bool) -> dict[str, Any]:
    def load(url: str, _options: Any) -> dict[str, Any]:
        if url not in known:
            raise UnsafeDocument("the document names a context that is not one of the vendored ones")
        return {
            "contentType": "application/ld+json",
            "contextUrl": None,
            "documentUrl": url,
            "document": known[url],
            "tag": "static",
        }

    if not is_vendored:
        return {"documentLoader": load, "contextResolver": ContextResolver({}, load), "base": _NO_BASE}
    if _thread.resolver is None:
        _thread.resolver = ContextResolver({}, load)
    return {"documentLoader": load, "contextResolver": _thread.resolver, "base": _NO_BASE}


def _unique_members(pairs: list[tuple[str, Any]]) -> Document:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnsafeDocument("the document names a member twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise UnsafeDocument(f"{name} is not JSON")


def _innermost_code(error: BaseException) -> str:
    code = ""
    link: BaseException | None = error
    while link is not None:
        code = getattr(link, "code", None) or code
        link = link.__cause__
    return code or "invalid"
