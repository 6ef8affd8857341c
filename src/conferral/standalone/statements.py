# SPDX-License-Identifier: Apache-2.0
"""What a credential says, as the sorted statements that were signed (RDFC-1.0), for our own documents only.

JSON-LD in general needs a large library. A document of ours has a known form: every term it may hold stands
in the table below with its meaning in the two pinned contexts. Anything else is refused, because a signature
would not cover what this program does not understand.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

CREDENTIALS = "https://www.w3.org/2018/credentials#"
STATUS = "https://www.w3.org/ns/credentials/status#"
BADGES = "https://purl.imsglobal.org/spec/vc/ob/vocab.html#"
SCHEMA = "https://schema.org/"
SECURITY = "https://w3id.org/security#"
XSD = "http://www.w3.org/2001/XMLSchema#"
RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
CONTEXT_VC = "https://www.w3.org/ns/credentials/v2"
CONTEXT_OB = "https://purl.imsglobal.org/spec/ob/v3p0/context-3.0.3.json"

# type of a node -> its full name
TYPES = {
    "VerifiableCredential": CREDENTIALS + "VerifiableCredential",
    "OpenBadgeCredential": BADGES + "OpenBadgeCredential",
    "Profile": BADGES + "Profile",
    "AchievementSubject": BADGES + "AchievementSubject",
    "IdentityObject": BADGES + "IdentityObject",
    "Achievement": BADGES + "Achievement",
    "BitstringStatusListEntry": STATUS + "BitstringStatusListEntry",
    "BitstringStatusListCredential": STATUS + "BitstringStatusListCredential",
    "BitstringStatusList": STATUS + "BitstringStatusList",
}
# node -> the types it must have, and term -> (full name, kind of value); kinds beginning with @ are nodes
TEXT = ""  # a plain literal
NODES: dict[str, tuple[frozenset[str], dict[str, tuple[str, str]]]] = {
    "@credential": (
        frozenset({"VerifiableCredential", "OpenBadgeCredential"}),
        {
            "name": (SCHEMA + "name", TEXT),
            "description": (SCHEMA + "description", TEXT),
            "issuer": (CREDENTIALS + "issuer", "@issuer"),
            "validFrom": (CREDENTIALS + "validFrom", XSD + "dateTime"),
            "validUntil": (CREDENTIALS + "validUntil", XSD + "dateTime"),
            "credentialSubject": (CREDENTIALS + "credentialSubject", "@subject"),
            "relatedResource": (CREDENTIALS + "relatedResource", "@resource[]"),
            "credentialStatus": (CREDENTIALS + "credentialStatus", "@status"),
        },
    ),
    "@issuer": (
        frozenset({"Profile"}),
        {
            "name": (SCHEMA + "name", TEXT),
            "url": (SCHEMA + "url", "https://www.w3.org/2001/XMLSchema#anyURI"),
        },
    ),
    "@subject": (
        frozenset({"AchievementSubject"}),
        {
            "identifier": (BADGES + "identifier", "@identity[]"),
            "achievement": (BADGES + "achievement", "@achievement"),
        },
    ),
    "@identity": (
        frozenset({"IdentityObject"}),
        {
            "identityType": (BADGES + "identityType", TEXT),
            "identityHash": (BADGES + "identityHash", TEXT),
            "hashed": (BADGES + "hashed", "https://www.w3.org/2001/XMLSchema#boolean"),
            "salt": (BADGES + "salt", TEXT),
        },
    ),
    "@achievement": (
        frozenset({"Achievement"}),
        {
            "achievementType": (BADGES + "achievementType", TEXT),
            "name": (SCHEMA + "name", TEXT),
            "description": (SCHEMA + "description", TEXT),
            "criteria": (BADGES + "Criteria", "@criteria"),
        },
    ),
    "@criteria": (frozenset(), {"narrative": (BADGES + "narrative", TEXT)}),
    "@resource": (
        frozenset(),
        {
            "mediaType": (SCHEMA + "encodingFormat", TEXT),
            "digestSRI": (CREDENTIALS + "digestSRI", CREDENTIALS + "sriString"),
        },
    ),
    "@status": (
        frozenset({"BitstringStatusListEntry"}),
        {
            "statusPurpose": (STATUS + "statusPurpose", TEXT),
            "statusListIndex": (STATUS + "statusListIndex", TEXT),
            "statusListCredential": (STATUS + "statusListCredential", "iri"),
        },
    ),
    "@list": (
        frozenset({"VerifiableCredential", "BitstringStatusListCredential"}),
        {
            "issuer": (CREDENTIALS + "issuer", "iri"),
            "validFrom": (CREDENTIALS + "validFrom", XSD + "dateTime"),
            "validUntil": (CREDENTIALS + "validUntil", XSD + "dateTime"),
            "credentialSubject": (CREDENTIALS + "credentialSubject", "@bits"),
        },
    ),
    "@bits": (
        frozenset({"BitstringStatusList"}),
        {
            "statusPurpose": (STATUS + "statusPurpose", TEXT),
            "encodedList": (STATUS + "encodedList", SECURITY + "multibase"),
            "ttl": (STATUS + "ttl", XSD + "integer"),
        },
    ),
}
ROOTS = {(CONTEXT_VC, CONTEXT_OB): "@credential", (CONTEXT_VC,): "@list"}
IRI = re.compile(r"(?:urn:uuid|did|https?):[^\s\x00-\x20<>\"{}|\\^`\x7f\ufeff]+")
UNSIGNABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
MOST_BYTES = 256 * 1024
MOST_DEPTH = 24


class Unsound(ValueError):
    """The document is not one whose every word a signature of ours would cover."""


def require(is_so: bool, otherwise: str) -> None:
    """Refuse the document unless something holds."""
    if not is_so:
        raise Unsound(otherwise)


def read_json(data: bytes) -> dict[str, Any]:
    """Parse one JSON object strictly: no repeated member, no NaN, at most 256 KiB."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Unsound("the file is not sound JSON") from None
    if not isinstance(document, dict) or len(data) > MOST_BYTES:
        raise Unsound("the file is not a JSON object of at most 256 KiB")
    return document


def canonical_json(value: Any, depth: int = 0) -> str:
    """Write JSON in its one canonical spelling (RFC 8785); documents of ours hold no fractions."""
    if depth > MOST_DEPTH:
        raise Unsound("the document is nested too deep")
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        inner = (f"{canonical_json(name)}:{canonical_json(value[name], depth + 1)}" for name in names)
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical_json(one, depth + 1) for one in value) + "]"
    if isinstance(value, float):
        raise Unsound("the document holds a fraction")
    return json.dumps(value, ensure_ascii=False)


def canonical_statements(document: dict[str, Any]) -> bytes:
    """Return the sorted N-Quads of a document without its proof.

    Raises:
        Unsound: a term, type, context or value that a document of ours does not hold.
    """
    contexts = document.get("@context")
    root = ROOTS.get(tuple(contexts)) if is_form_of_ours(document) and isinstance(contexts, list) else None
    if root is None:
        raise Unsound("the document is not in the form that this program reads")
    statements: list[tuple[str, str, str]] = []
    _node({name: value for name, value in document.items() if name != "@context"}, root, statements)
    return _canonical(sorted(set(statements)))


def is_form_of_ours(document: dict[str, Any]) -> bool:
    """Tell whether a document names exactly the contexts of our credentials or of our status lists."""
    contexts = document.get("@context")
    return (
        isinstance(contexts, list)
        and all(isinstance(one, str) for one in contexts)
        and tuple(contexts) in ROOTS
    )


def _node(node: Any, kind: str, statements: list[tuple[str, str, str]]) -> str:
    """Add what a node says; return its name: an IRI, or a blank one."""
    types, terms = NODES[kind]
    if not isinstance(node, dict):
        raise Unsound("a node of the document is no object")
    given = node.get("type", [])
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given) or set(given) != types:
        raise Unsound("a type of the document is not the one that stands there in documents of ours")
    name = _iri(node["id"]) if "id" in node else f"_:b{len(statements)}"
    statements.extend((name, f"<{RDF_TYPE}>", f"<{TYPES[one]}>") for one in given)
    for term, value in node.items():
        if term in ("id", "type"):
            continue
        if term not in terms:
            raise Unsound("the document holds a term that documents of ours do not hold")
        full, wanted = terms[term]
        for one in _values(value, wanted):
            statements.append((name, f"<{full}>", _object(one, wanted.removesuffix("[]"), statements)))
    if not (given or node.keys() - {"id", "type"}):
        raise Unsound("a node of the document says nothing")
    return name


def _values(value: Any, kind: str) -> list[Any]:
    if not kind.endswith("[]"):
        return [value]
    values = value if isinstance(value, list) else [value]
    if not values:
        raise Unsound("an empty array is not covered by a signature")
    return values


def _object(value: Any, kind: str, statements: list[tuple[str, str, str]]) -> str:
    if kind.startswith("@"):
        # A blank node is named before its statements are added, so that no two share a name.
        statements.append(("", "", ""))
        return _node(value, kind, statements)
    if kind == "iri":
        return _iri(value)
    if kind.endswith("#boolean") and isinstance(value, bool):
        return f'"{"true" if value else "false"}"^^<{kind}>'
    if kind.endswith("#integer") and isinstance(value, int) and not isinstance(value, bool):
        return f'"{value}"^^<{kind}>'
    if not isinstance(value, str) or kind.endswith(("#boolean", "#integer")) or UNSIGNABLE.search(value):
        raise Unsound("a value of the document is of another kind than in documents of ours")
    escaped = value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
    escaped = escaped.replace("\r", "\\r").replace('"', '\\"')
    return f'"{escaped}"' + (f"^^<{kind}>" if kind else "")


def _iri(value: Any) -> str:
    if not isinstance(value, str) or not IRI.fullmatch(value) or UNSIGNABLE.search(value):
        raise Unsound("an id of the document is not an address of the kind that documents of ours hold")
    return f"<{value}>"


def _canonical(statements: list[tuple[str, str, str]]) -> bytes:
    """Name the blank nodes by the hashes of what is said of them (RDFC-1.0 4.4); in ours no two are alike."""
    said = [one for one in statements if one[0]]
    blanks = {term for one in said for term in (one[0], one[2]) if term.startswith("_:")}
    hashes = {blank: _first_degree(blank, said) for blank in blanks}
    if len(set(hashes.values())) != len(blanks):
        raise Unsound("two parts of the document are alike")
    names = {blank: f"_:c14n{place}" for place, blank in enumerate(sorted(blanks, key=hashes.__getitem__))}
    lines = sorted(_line(tuple(names.get(term, term) for term in one)) for one in said)
    return "".join(lines).encode("utf-8")


def _first_degree(blank: str, said: list[tuple[str, str, str]]) -> str:
    def seen(term: str) -> str:
        return ("_:a" if term == blank else "_:z") if term.startswith("_:") else term

    lines = sorted(_line(tuple(map(seen, one))) for one in said if blank in (one[0], one[2]))
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def _line(statement: tuple[str, ...]) -> str:
    return " ".join(statement) + " .\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unsound("the document names a member twice")
    return members


def _no_constant(name: str) -> Any:
    raise Unsound(f"{name} is not JSON")
