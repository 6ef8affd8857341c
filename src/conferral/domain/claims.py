# SPDX-License-Identifier: Apache-2.0
"""The names in a credential: who, what for, by whom. They are nobody's word until its signature is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def names_in(document: Mapping[str, Any]) -> list[str]:
    """Return the recipient's name, the achievement's and the issuer's, as far as they are there.

    >>> names_in({"issuer": {"id": "did:key:z", "name": "Demo University"}})
    ['Demo University']
    """
    return [name for name in _names(document) if isinstance(name, str) and name]


def _names(document: Mapping[str, Any]) -> Iterator[object]:
    subject = _object(document.get("credentialSubject"))
    identities = subject.get("identifier")
    for one in identities if isinstance(identities, list) else [identities]:
        identity = _object(one)
        if identity.get("identityType") == "name" and not identity.get("hashed"):
            yield identity.get("identityHash")
    yield _object(subject.get("achievement")).get("name")
    yield _object(document.get("issuer")).get("name")


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
