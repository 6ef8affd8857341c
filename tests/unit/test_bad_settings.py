# SPDX-License-Identifier: Apache-2.0
"""Wrong settings: every one is named with what is allowed, all at once, and no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from conferral.settings import Settings, SettingsError
from conferral.settings.kinds import HIGHEST_PORT
from conferral.settings.model import describe, variable

# For every kind of setting, something that is none.
WRONG = {
    "word": "perhaps",
    "list": "\x01",
    "whole number": "1.5",
    "number": "many",
    "URL": "example.org",
    "switch": "perhaps",
    "sender": "nobody",
    "header": "a b",
    "text": "two\nlines",
    "origin": "https://example.org/log/",
}
ANY_PATH = {"path", "paths"}


def problems(folder: Path, **variables: str) -> list[str]:
    """Return what is wrong with settings."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"CONFERRAL_DATA_DIR": str(folder), **variables})
    return list(caught.value.problems)


@pytest.mark.parametrize("name", [name for name, one in describe().items() if one.kind.name not in ANY_PATH])
def test_each_wrong_setting_is_named_with_what_is_allowed(tmp_path: Path, name: str) -> None:
    """The variable, the value unless it is a secret, the reason, what would be right."""
    described = describe()[name]
    value = WRONG[described.kind.name]
    found = problems(tmp_path, **{variable(name): value})
    assert len(found) == 1, found
    assert found[0].startswith(variable(name))
    assert found[0].endswith(f"allowed: {described.kind.allowed}")
    assert (value in found[0]) is not described.secret or not value.isprintable()


def test_values_and_rules_are_told_at_once(tmp_path: Path) -> None:
    """What is wrong by itself and what does not fit together come in one answer, nothing twice."""
    found = problems(
        tmp_path,
        CONFERRAL_HTTP_PORT="eighty",
        CONFERRAL_SMTP_HOSTS="mail.example",
        CONFERRAL_HEARTBEAT_SECONDS="20",
        CONFERRAL_FONT_DIRS="/nowhere/fonts",
        CONFERRAL_ENV="production",
    )
    text = "\n".join(found)
    for said in (
        "CONFERRAL_HTTP_PORT='eighty' is not a whole number",
        "did you mean CONFERRAL_SMTP_HOST?",
        "CONFERRAL_HEARTBEAT_SECONDS=20 is too long for a lease of 30 s",
        "'/nowhere/fonts', which is not a directory",
        "CONFERRAL_SMTP_HOST is missing; production sends real mail",
        "is not https; production needs https",
    ):
        assert text.count(said) == 1, text


def test_a_rule_about_a_wrong_value_is_not_told(tmp_path: Path) -> None:
    """A default that took its place would be accused."""
    found = problems(tmp_path, CONFERRAL_HTTP_PORT=str(HIGHEST_PORT + 1), CONFERRAL_STREAM_PORT="8000")
    assert len(found) == 1
    assert "CONFERRAL_HTTP_PORT" in found[0]
