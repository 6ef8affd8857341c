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
# Invisible signs that writing needs: joiners of Indic and Arabic scripts, the weak direction marks that
# keep "C++" whole in a Hebrew or Arabic line, and Arabic, Syriac and Kaithi signs that are visible.
_WRITTEN: Final = frozenset(
    "\u200c\u200d\u200e\u200f\u061c\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
    "\U000110bd\U000110cd"
)
# Control, format, surrogate, private, unassigned; line and paragraph separators.
_REFUSED_CATEGORIES: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
MAX_MARKS: Final = 8  # in a row upon one letter; Vietnamese, Yoruba and Hebrew need four at most
_LOCAL_PART: Final = re.compile(r"[^\s@\"(),:;<>\[\\\]\x00-\x20\x7f]+")


def text(value: str, pointer: str, *, longest: int = MAX_TEXT) -> str | FieldError:
    """Return a text in NFC without outer blanks, or what is wrong with it."""
    normal = unicodedata.normalize("NFC", value).strip()
    if not normal:
        return FieldError(pointer, "field_required", "it is empty")
    if len(normal) > longest:
        return FieldError(pointer, "field_too_long", f"{len(normal)} characters; at most {longest} fit")
    for character in normal:
        if is_refused(character):
            code = f"U+{ord(character):04X}"
            return FieldError(pointer, "field_invalid", f"it holds the control character {code}; remove it")
    if not any(unicodedata.category(character)[0] in "LNPS" for character in normal):
        return FieldError(pointer, "field_required", "it holds nothing that can be seen")
    if _heap_of_marks(normal):
        return FieldError(pointer, "field_invalid", f"more than {MAX_MARKS} accents stand on one letter")
    return normal


def is_refused(character: str) -> bool:
    """Tell whether a character controls how text is shown instead of being text."""
    return unicodedata.category(character) in _REFUSED_CATEGORIES and character not in _WRITTEN


def _heap_of_marks(text: str) -> bool:
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        if marks > MAX_MARKS:
            return True
    return False


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
    if (refusal := _refused_in(found, local)) is not None:
        return wrong(refusal)
    if "." not in domain:
        return wrong("domain has no dot")
    try:
        ascii_domain = _ascii_domain(domain)
    except idna.IDNAError:
        return wrong("the domain is not a valid one")
    return f"{local}@{ascii_domain}"


def _refused_in(found: str, local: str) -> str | None:
    for character in found:
        # In an address even a joiner makes two mailboxes that look alike.
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            return f"it holds the invisible character U+{ord(character):04X}; type it anew"
    if _LOCAL_PART.fullmatch(local) is None or ".." in local or local[0] == "." or local[-1] == ".":
        return "the part before the @ holds characters that are not allowed"
    return None


@lru_cache(maxsize=4096)  # a file has many people and few domains
def _ascii_domain(domain: str) -> str:
    return idna.encode(domain, uts46=True).decode()


def day(value: str, pointer: str) -> date | FieldError:
    """Return a date written YYYY-MM-DD, or what is wrong with it."""
    found = value.strip()
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", found) is None:
        return FieldError(pointer, "date_invalid", "not a date; expected YYYY-MM-DD")
    try:
        return date.fromisoformat(found)
    except ValueError:
        return FieldError(pointer, "date_invalid", "there is no such date")
