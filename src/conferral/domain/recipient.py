# SPDX-License-Identifier: Apache-2.0
"""What people type: names, addresses, texts and dates, checked and normalised at the door.

Texts are NFC. Control and bidirectional-override characters are refused, not removed: a name
that prints differently from what was sent would be a forgery of ours.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache
from typing import Final

import idna

from conferral.domain.problems import FieldError

MAX_NAME: Final = 200  # longer names do not fit a certificate at a readable size
MAX_TEXT: Final = 300
MAX_ADDRESS: Final = 254  # RFC 5321
MAX_LOCAL_PART: Final = 64
_BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LOCAL_PART: Final = re.compile(r"[^\s@\"(),:;<>\[\\\]\x00-\x20\x7f]+")


def text(value: str, pointer: str, *, longest: int = MAX_TEXT) -> str | FieldError:
    """Return a text in NFC without outer blanks, or what is wrong with it."""
    normal = unicodedata.normalize("NFC", value).strip()
    if not normal:
        return FieldError(pointer, "field_required", "it is empty")
    if len(normal) > longest:
        return FieldError(pointer, "field_too_long", f"{len(normal)} characters; at most {longest} fit")
    for character in normal:
        if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") or character in _BIDI_CONTROLS:
            code = f"U+{ord(character):04X}"
            return FieldError(pointer, "field_invalid", f"it holds the control character {code}; remove it")
    return normal


def name(value: str, pointer: str) -> str | FieldError:
    """Return a person's name, or what is wrong with it."""
    return text(value, pointer, longest=MAX_NAME)


def address(value: str, pointer: str) -> str | FieldError:
    """Return an e-mail address (local part as given, domain in IDNA 2008), or what is wrong."""
    found = unicodedata.normalize("NFC", value).strip()
    local, at, domain = found.rpartition("@")

    def wrong(reason: str) -> FieldError:
        return FieldError(pointer, "email_invalid", f"not an e-mail address ({reason})")

    if not at or not local:
        return wrong("it has no @ with a name before it")
    if len(local.encode()) > MAX_LOCAL_PART or len(found.encode()) > MAX_ADDRESS:
        return wrong("it is too long")
    if _LOCAL_PART.fullmatch(local) is None or ".." in local or local[0] == "." or local[-1] == ".":
        return wrong("the part before the @ holds characters that are not allowed")
    if "." not in domain:
        return wrong("domain has no dot")
    try:
        ascii_domain = _ascii_domain(domain)
    except idna.IDNAError:
        return wrong("the domain is not a valid one")
    return f"{local}@{ascii_domain}"


@lru_cache(maxsize=4096)  # a file has many people and few domains
def _ascii_domain(domain: str) -> str:
    return idna.encode(domain, uts46=True).decode()


def day(value: str, pointer: str) -> date | FieldError:
    """Return a date written YYYY-MM-DD, or what is wrong with it."""
    found = value.strip()
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", found) is None:
        return FieldError(pointer, "date_invalid", "not a date; expected YYYY-MM-DD")
    try:
        return date.fromisoformat(found)
    except ValueError:
        return FieldError(pointer, "date_invalid", "there is no such date")
