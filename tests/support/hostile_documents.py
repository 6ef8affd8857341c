# SPDX-License-Identifier: Apache-2.0
"""Unsigned credentials whose texts try everything: for what must hold for all documents."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from conferral.domain import vc
from conferral.domain.tokens import public_token
from support import sample_credentials

TEXTS = (
    "",
    " ",
    '"',
    "\\",
    "\\n",
    "\n\r\t",
    '" .\n_:c14n0 <urn:a> "b',
    "%s %d %% {0} $1",
    "_:c14n0",
    "_:a",
    "@type",
    "https://purl.imsglobal.org/spec/vc/ob/vocab.html#Profile",
    "urn:conferral-mark:3:",
    "\u202e\u05d4\u05e4\u05d5\u05da\u202c \u200f\u061c",
    "محمد «العربي» \u200fZoë",
    "e\u0301 é \ufb01 \U0001d4b3 \U0001f469\u200d\U0001f393",
    "\u2028\u2029\u00a0\ufeff\u0085",
    "Certificate",
    "application/pdf",
    "revocation",
    "emailAddress",
    "name",
    "true",
    "null",
    "4711",
    "2026-01-01T00:00:00Z",
    "\U0001f600x" * 500,
)
REFUSED_TEXTS = ("\x00", "a\x07b", "\x7f", "\ud800", "a\udfffb")
IRIS = (
    "urn:conferral-mark:3:",
    "https://acme.example/%20?q='&x=1#f#g",
    "https://acme.example/é/日本",
    "http://a",
    "did:key:z6Mk",
    "urn:",
    "https:",
    "https://creds.example.org/status/7",
)
OTHER_IRIS = (
    *("ftp://acme.example/", "mailto:x", "name:x", "xsd:string", "id:x", "_:b0", "@id", "relative", ""),
    *("https://a b", "urn:x\u00a0y", "urn:a>b", "urn:\ud800"),
)
OPTIONAL = ("url", "holder", "end", "tag", "second tag", "evidence")
FORMS = 12  # outlines of one seed: each has to be learned
IRI_MEMBERS = ("id", "statusListCredential")


def documents(seed: int) -> Iterator[dict[str, Any]]:
    """Yield documents without end, the same for the same seed."""
    source = random.Random(seed)
    issuers = (sample_credentials.web_issuer(), sample_credentials.key_issuer())
    forms = [{name: source.random() < 0.5 for name in OPTIONAL} for _ in range(FORMS)]
    while True:
        document = _document(source, source.choice(issuers), source.choice(forms))
        yield _with_hostile_texts(document, source)


def _document(
    source: random.Random, issuer: sample_credentials.Issuer, form: dict[str, bool]
) -> dict[str, Any]:
    """Build one with the optional members of a form."""
    token = public_token(source.randbytes(16))
    changes: dict[str, Any] = {
        "vc_id": f"urn:uuid:{uuid.UUID(int=source.getrandbits(128), version=4)}",
        "token": token,
        "pdf_url": f"{sample_credentials.PUBLIC_URL}/c/{token}/base.pdf",
        "email_salt": source.randbytes(16).hex(),
        "status_list_index": source.randrange(131_072),
        "issuer_url": "https://acme.example" if form["url"] else None,
        "subject_id": "did:example:holder" if form["holder"] else None,
    }
    if not form["end"]:
        changes["valid_until"] = None
    document = vc.build(sample_credentials.content(issuer, **changes))
    achievement = document["credentialSubject"]["achievement"]
    if form["tag"]:
        achievement["tag"] = [source.choice(("one", "two", "three")) for _ in range(1 + form["second tag"])]
    if form["evidence"]:
        document["evidence"] = [{"id": "urn:uuid:evidence", "type": ["Evidence"], "name": "Thesis"}]
    return document


def _with_hostile_texts(document: dict[str, Any], source: random.Random) -> dict[str, Any]:
    """Replace some texts: by hostile ones, by texts of the same document, rarely by refused ones."""
    share = source.choice((0.0, 0.1, 0.5, 1.0))
    own = [text for member, text in _texts(document) if member not in IRI_MEMBERS]
    own_iris = [text for member, text in _texts(document) if member in IRI_MEMBERS]
    strange = source.random() < 0.1
    very_long = source.random() < 0.01  # rarely: they cost more time than they find

    def changed(member: str, text: str) -> str:
        if source.random() >= share:
            return text
        is_iri = member in IRI_MEMBERS
        if strange and source.random() < 0.2:
            return source.choice(OTHER_IRIS if is_iri else REFUSED_TEXTS)
        if is_iri:
            return source.choice((*IRIS, source.choice(own_iris), f"urn:uuid:{source.getrandbits(64)}"))
        if very_long:
            return "x\u00e9" * 10_000
        return source.choice((*TEXTS, source.choice(own), source.choice(own_iris)))

    return {key: _mapped(key, value, changed) for key, value in document.items()}


def _texts(value: Any, member: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in {"type", "@context"}:
                yield from _texts(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, member)
    elif isinstance(value, str):
        yield member, value


def _mapped(member: str, value: Any, change: Callable[[str, str], str]) -> Any:
    if member in {"type", "@context"}:
        return value
    if isinstance(value, dict):
        return {key: _mapped(key, inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(member, inner, change) for inner in value]
    return change(member, value) if isinstance(value, str) else value
