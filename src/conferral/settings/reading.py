# SPDX-License-Identifier: Apache-2.0
"""From environment variables to checked values: every problem is found and told at once.

The order of sources: the environment, then what a running `conferral up` of the same data directory
left in `run/environment.json`, then the default.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conferral.settings import rules, running
from conferral.settings.errors import SettingsError
from conferral.settings.kinds import Derived, Described
from conferral.settings.model import variable

PREFIX = "CONFERRAL_"
# Read by the test suite and by `.ci/run`, never by the product.
_TEST_PREFIX = "CONFERRAL_TEST_"
_TEST_NAMES = frozenset({"CONFERRAL_REQUIRE_ALL"})
# A longer value is cut in an error message.
_SHOWN_CHARACTERS = 80


def read(environ: Mapping[str, str], known: Mapping[str, Described], *, role: str | None) -> dict[str, Any]:
    """Return the value of every field.

    Raises:
        SettingsError: unknown names, wrong values, values that do not fit together.
    """
    given = {
        name: value.strip() for name, value in environ.items() if name.startswith(PREFIX) and value.strip()
    }
    problems = _unknown(given, known)
    if role is not None:
        given["CONFERRAL_ROLE"] = role
    values: dict[str, Any] = {"home": home_directory(environ)}
    for name, described in known.items():
        values[name] = _value(name, described, given, values, problems)
        if name == "data_dir" and values["role"] != "up":
            given = {**running.environment(values["data_dir"]), **given}
    del values["home"]
    # A rule about a value that is wrong by itself would say the same twice, or nonsense.
    wrong = [problem.partition("=")[0].partition(":")[0] for problem in problems]
    problems.extend(
        said for said in rules.broken(values) if not any(re.search(rf"\b{name}\b", said) for name in wrong)
    )
    if problems:
        raise SettingsError(problems)
    return values


def home_directory(environ: Mapping[str, str]) -> Path:
    """Return the default data directory: `./var` in a checkout, else the user's data folder."""
    project = Path("pyproject.toml")
    if project.is_file() and '\nname = "conferral"\n' in project.read_text(encoding="utf-8"):
        return Path("var").absolute()
    base = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or Path.home()) / ".local" / "share"
    return Path(base) / "conferral"


def _unknown(given: Mapping[str, str], known: Mapping[str, Described]) -> list[str]:
    names = [variable(name) for name in known]
    problems = []
    for name in sorted(given):
        if name in names or name in _TEST_NAMES or name.startswith(_TEST_PREFIX):
            continue
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "see docs/reference/settings.md"
        problems.append(f"{name}: there is no such setting; {hint}")
    return problems


def _value(
    name: str,
    described: Described,
    given: Mapping[str, str],
    values: Mapping[str, Any],
    problems: list[str],
) -> Any:
    text = given.get(variable(name))
    if text is not None:
        try:
            return described.kind.parse(text)
        except ValueError as error:
            shown = "(not shown)" if described.secret else repr(text[:_SHOWN_CHARACTERS])
            problems.append(f"{variable(name)}={shown} {error}; allowed: {described.kind.allowed}")
    if isinstance(described.default, Derived):
        return described.default.compute(values)
    return described.default
