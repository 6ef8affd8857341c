# SPDX-License-Identifier: Apache-2.0
"""The wording and the layout of every e-mail, as data: one JSON file a language, one HTML table layout.

Read once, when the package is imported; never from anywhere but the package. A new kind of
e-mail is an entry under `kinds` in every language; a new language is a file.
Placeholders are a fixed list, replaced as text in one pass: wording is never a template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, Final, Literal

Direction = Literal["ltr", "rtl"]

LOCALES: Final = ("en", "es", "fr", "ar")
DEFAULT_LOCALE: Final = "en"
KINDS: Final = (
    "issued",
    "resigned",
    "revoked",
    "suspended",
    "reinstated",
    "superseded",
    "daily_report",
)
FIGURES: Final = (
    "issued",
    "waiting",
    "failed",
    "emails_sent",
    "emails_failed",
    "webhooks_delivered",
    "webhooks_failed",
)
PLACEHOLDERS: Final = frozenset({"recipient.name", "organisation.name", "credential.title", "report.date"})

_PLACEHOLDER: Final = re.compile(r"\{([a-z]+\.[a-z]+)\}")


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The sentences of one kind of e-mail in one language; an organisation may bring its own."""

    subject: str
    preheader: str
    heading: str
    paragraphs: tuple[str, ...]
    plate_label: str
    button: str
    reason: str
    unsubscribe: str

    def unknown_placeholders(self) -> tuple[str, ...]:
        """Return the placeholders that nothing replaces, so that a form can refuse them by name."""
        texts = [text for name, text in vars(self).items() if name != "paragraphs"]
        found = _PLACEHOLDER.findall("\n".join([*texts, *self.paragraphs]))
        return tuple(sorted(set(found) - PLACEHOLDERS))

    def filled(self, values: Mapping[str, str]) -> Wording:
        """Return the wording with its placeholders replaced; what has no value stays as written."""

        def fill(text: str) -> str:
            return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)

        return Wording(
            subject=fill(self.subject),
            preheader=fill(self.preheader),
            heading=fill(self.heading),
            paragraphs=tuple(fill(paragraph) for paragraph in self.paragraphs),
            plate_label=fill(self.plate_label),
            button=fill(self.button),
            reason=fill(self.reason),
            unsubscribe=fill(self.unsubscribe),
        )


@dataclass(frozen=True, kw_only=True)
class Language:
    """Everything the e-mails say in one language."""

    tag: str
    direction: Direction
    test_banner: str
    link_hint: str
    figures: Mapping[str, str]
    kinds: Mapping[str, Wording]


def language(locale: str) -> Language:
    """Return the language of a BCP 47 tag ("es-MX" reads Spanish); English where we have none.

    >>> language("es-MX").tag, language("tlh").tag
    ('es', 'en')
    """
    primary = locale.replace("_", "-").partition("-")[0].lower()
    return _LANGUAGES.get(primary, _LANGUAGES[DEFAULT_LOCALE])


def _read(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _wording(data: Mapping[str, Any]) -> Wording:
    if set(data) != {field.name for field in fields(Wording)}:
        raise ValueError(f"wording has other parts than expected: {sorted(data)}")
    return Wording(**{**data, "paragraphs": tuple(data["paragraphs"])})


def _load(tag: str) -> Language:
    data = json.loads(_read(f"{tag}.json"))
    kinds = {kind: _wording(data["kinds"][kind]) for kind in KINDS}
    return Language(
        tag=tag,
        direction=data["direction"],
        test_banner=data["test_banner"],
        link_hint=data["link_hint"],
        figures={figure: data["figures"][figure] for figure in FIGURES},
        kinds=kinds,
    )


_LANGUAGES: Final = {tag: _load(tag) for tag in LOCALES}
LAYOUT: Final = _read("layout.html")
TEXT_LAYOUT: Final = _read("layout.txt")
