# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conferral.domain import credential
from conferral.domain.verification import Check, Verdict
from conferral.reliable import tables
from conferral.tasks.celery_app import TASKS
from conferral.web import words

TEMPLATES = Path(words.__file__).parent / "templates"


def test_every_state_has_a_word() -> None:
    """No page shows a word of the wire, or fails for want of one."""
    assert set(words.CREDENTIAL) == set(credential.STATES)
    assert set(words.RUN) == set(tables.STATES) - {tables.WAITING}
    assert set(words.VERDICT) == set(Verdict)
    assert set(words.TASK) == set(TASKS)


def test_withdrawn_and_cancelled_are_not_mixed() -> None:
    """A run that is REVOKED was cancelled; a credential that is revoked was withdrawn."""
    assert words.RUN["REVOKED"].text == "Cancelled"
    assert words.CREDENTIAL["revoked"].text == "Revoked"
    assert words.CREDENTIAL["superseded"].text == "Replaced"


@pytest.mark.parametrize("ok", [True, False, None])
@pytest.mark.parametrize("name", ["signature", "pdf_digest", "issuer", "status", "validity", "anchor"])
def test_every_check_is_a_sentence_whatever_it_found(name: str, ok: bool | None) -> None:
    """True, false and "cannot be told" read differently."""
    said = words.check(Check(name, ok, ""))
    others = {words.check(Check(name, other, "")).text for other in (True, False, None) if other is not ok}
    assert said.text not in others
    assert said.text[0].isupper()


def test_every_icon_that_is_named_is_drawn() -> None:
    """A missing drawing would be an error on the page that needs it most."""
    drawn = set(
        re.findall(r'^  "([a-z]+)": \'<', (TEMPLATES / "icons.html").read_text("utf-8"), re.MULTILINE)
    )
    named = {
        word.icon
        for table in (words.CREDENTIAL, words.RUN, words.OUTCOME, words.BATCH, words.ENDPOINT, words.VERDICT)
        for word in table.values()
    }
    for page in TEMPLATES.rglob("*.html"):
        named |= set(
            re.findall(r'(?:icon|link|empty)\((?:"[^"]*", "[^"]*", )?"([a-z]+)"', page.read_text("utf-8"))
        )
    assert named <= drawn


def test_no_page_needs_what_its_policy_forbids() -> None:
    """No style attribute, no inline script, no handler: the browser would drop them in silence."""
    for page in TEMPLATES.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:|<script>", text), page.name
        assert not re.search(r"(?:src|href)=\"https?://", text), page.name
