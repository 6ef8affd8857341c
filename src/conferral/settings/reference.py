# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/settings.md from the settings themselves; a test keeps the two equal."""

from __future__ import annotations

from collections.abc import Iterator

from conferral.settings.kinds import Described
from conferral.settings.model import describe, variable

# The first field of each section, in the order of the model.
_SECTIONS = {
    "env": "Installation",
    "http_host": "Addresses",
    "slots_high_priority": "Pools",
    "lease_seconds": "Runs",
    "mail_from": "E-mail",
    "webhook_allow_cidrs": "Webhooks",
    "anchors": "Credentials and log",
}

_OPENING = """\
# Settings

All settings come from environment variables. An empty value counts as not set. A name that begins with
`CONFERRAL_` and is not listed here is refused, as is every wrong value: all problems are told at once,
before anything starts. Secrets are read from files where a file setting exists, and are never printed.

While `conferral up` runs, other commands on the same data directory find its Redis, ports and address by
themselves: they stand in `run/environment.json` there, and the environment wins over that file.

`CONFERRAL_TEST_…` and `CONFERRAL_REQUIRE_ALL` are read by the test suite only.

This page is generated: `python -m conferral.settings > docs/reference/settings.md`.
"""


def page() -> str:
    """Return the whole reference page as Markdown."""
    return "\n".join([_OPENING, *_lines()])


def _lines() -> Iterator[str]:
    for name, described in describe().items():
        if name in _SECTIONS:
            yield from (
                f"## {_SECTIONS[name]}",
                "",
                "| setting | default | allowed | meaning |",
                "|---|---|---|---|",
            )
        yield _row(name, described)
        if _ends_section(name):
            yield ""


def _ends_section(name: str) -> bool:
    names = list(describe())
    following = names[names.index(name) + 1 :]
    return bool(following) and following[0] in _SECTIONS


def _row(name: str, described: Described) -> str:
    allowed = described.kind.allowed.replace("|", "or")
    if described.unit:
        allowed = f"{allowed} ({described.unit})"
    shown = described.shown_default or "not set"
    if not described.default or isinstance(described.default, str | int | float | tuple):
        shown = f"`{shown}`" if described.shown_default else shown
    secret = " Secret." if described.secret else ""
    return f"| `{variable(name)}` | {shown} | {allowed} | {described.meaning}{secret} |"
