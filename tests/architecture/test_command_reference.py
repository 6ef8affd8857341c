# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from conferral.cli.main import COMMANDS, load

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def paths(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below this one with the words that call it."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from paths(child, *words, name)
    else:
        yield " ".join(words), command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    """A command that the reference does not name does not exist for its readers."""
    text = PAGE.read_text(encoding="utf-8")
    for words, command in paths(load(name), name):
        assert f"conferral {words}" in text
        assert command.help
        options = [
            item.opts[-1] for item in command.params if isinstance(item, click.Option) and not item.hidden
        ]
        assert [option for option in options if option not in text] == []
