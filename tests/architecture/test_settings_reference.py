# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

from conferral.settings.model import describe, variable
from conferral.settings.reference import page

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_every_setting_is_documented() -> None:
    """The reference is what the program reads, word for word."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == page() + "\n", "run: python -m conferral.settings > docs/reference/settings.md"
    assert [name for name in describe() if f"| `{variable(name)}` |" not in text] == []
