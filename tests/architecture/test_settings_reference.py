# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from pathlib import Path

from conferral.settings.model import describe, variable
from conferral.settings.reference import page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "settings.md"
TEST_ONLY = {"CONFERRAL_REQUIRE_ALL"}


def test_every_setting_is_documented() -> None:
    """The reference is what the program reads, word for word."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page() + "\n", "run: python -m conferral.settings > docs/reference/settings.md"
    assert [name for name in describe() if f"| `{variable(name)}` |" not in text] == []


def test_every_setting_that_is_named_anywhere_exists() -> None:
    """No message, page or script sends a reader to a setting that would be refused."""
    known = {variable(name) for name in describe()} | TEST_ONLY
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), ROOT / "run"]
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in re.findall(r"CONFERRAL_[A-Z0-9_]*[A-Z0-9](?!…)\b", path.read_text(encoding="utf-8"))
        if name not in known and not name.startswith("CONFERRAL_TEST")
    }
    assert wrong == set()
