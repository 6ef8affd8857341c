# SPDX-License-Identifier: Apache-2.0
"""`conferral doctor`: what is well, what is not, and how to mend it; it changes nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

import click

from conferral.cli import checks
from conferral.cli.findings import BAD, GOOD, WARNING, Finding, bad
from conferral.settings import Settings, SettingsError

_SIGNS = {GOOD: ("✓", 32), WARNING: ("!", 33), BAD: ("✗", 31)}
_WIDTH = 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one object a line.")
def doctor(as_json: bool) -> int:
    """Check this installation and say how to mend it."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    worst = 0
    for finding in examine():
        click.echo(json.dumps(asdict(finding)) if as_json else _line(finding, colour=colour))
        worst = max(worst, 1 if finding.state == BAD else 0)
    return worst


def examine() -> Iterator[Finding]:
    """Yield the findings of every check; a check that fails is itself a finding."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            yield bad("settings", problem, "see docs/reference/settings.md")
        return
    for check in checks.ALL:
        yield from _guarded(check, settings)


def _guarded(check: Callable[[Settings], Iterable[Finding]], settings: Settings) -> Iterator[Finding]:
    name = check.__name__.replace("_", " ")
    try:
        yield from check(settings)
    except Exception as error:  # noqa: BLE001 -- the next check may say why
        yield bad(
            name, f"the check failed: {type(error).__name__}: {error}", "mend what is named above first"
        )


def _line(finding: Finding, *, colour: bool) -> str:
    sign, number = _SIGNS[finding.state]
    painted = f"\x1b[{number}m{sign}\x1b[0m" if colour else sign
    fix = f"\n  {'':<{_WIDTH}} → {finding.fix}" if finding.fix else ""
    return f"{painted} {finding.check:<{_WIDTH}} {finding.detail}{fix}"
