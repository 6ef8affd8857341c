# SPDX-License-Identifier: Apache-2.0
"""What a tired reader relies on: short files, short functions, a licence, one word for one thing."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "conferral"
MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 40
MOST_PARAMETERS = 5
# A file named like this gathers what nobody found a place for.
REFUSED_NAMES = {"utils", "util", "helpers", "helper", "common", "constants", "interfaces", "misc"}
REFUSED_CLASSES = re.compile(r"^Base[A-Z]|^[^_].*(Manager|Handler|Processor)$")
RENDERER_IMPORT = re.compile(r"^\s*(from|import) .*\b(adapters\.renderer|import renderer)\b", re.MULTILINE)
LOCKED = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
# The only places where the two databases may differ.
DIALECT_FILES = {"store/engine.py", "reliable/dispatcher.py"}

SOURCES = sorted(
    path for path in ROOT.joinpath("src").rglob("*.py") if "migrations/versions" not in str(path)
)
TESTS = sorted(ROOT.joinpath("tests").rglob("*.py"))


def relative(path: Path) -> str:
    """Return a path as the failure should name it."""
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_a_file_is_short_and_names_its_licence(path: Path) -> None:
    """At most 400 lines, the licence first."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    assert len(lines) <= MOST_FILE_LINES


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_source_file_says_what_it_is_for(path: Path) -> None:
    """A docstring follows the licence."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_are_short_and_take_few_positional_parameters(path: Path) -> None:
    """At most 40 lines and five positional parameters; options are named."""
    too_long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in functions(path)
        if node.end_lineno and node.end_lineno - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    too_many = [
        f"{node.name}: {count} positional parameters"
        for node in functions(path)
        if (count := _positional(node)) > MOST_PARAMETERS and not _is_command(node)
    ]
    assert too_long + too_many == []


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_a_file_is_named_after_one_thing(path: Path) -> None:
    """No drawer for odds and ends."""
    assert not REFUSED_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert [name for name in names if REFUSED_CLASSES.search(name)] == []


def test_the_dialect_is_asked_in_two_places_only() -> None:
    """Every other line runs unchanged on SQLite and PostgreSQL."""
    asking = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if "dialect.name" in path.read_text(encoding="utf-8")
    }
    assert asking <= DIALECT_FILES


def test_no_lock_holds_an_address() -> None:
    """A lock names packages and hashes; where they come from is the machine's own business."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = tracked.splitlines()
    locks = [name for name in names if name.endswith((".lock", "package-lock.json"))]
    assert "requirements.lock" in locks
    assert [name for name in locks if "://" in ROOT.joinpath(name).read_text(encoding="utf-8")] == []
    assert not {"uv.lock", "pylock.toml", "poetry.lock"} & {Path(name).name for name in names}


def test_every_locked_package_has_hashes() -> None:
    """Nothing is installed that could be something else tomorrow."""
    for lock in ROOT.glob("requirements*.lock"):
        entries = re.split(r"\n(?=[a-z0-9])", lock.read_text(encoding="utf-8").strip())
        assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_both_locks_agree() -> None:
    """What is tested is what is installed."""
    product, development = (_versions(name) for name in ("requirements.lock", "requirements-dev.lock"))
    assert {name: version for name, version in product.items() if development.get(name) != version} == {}


def test_nobody_imports_the_renderer_child() -> None:
    """Typst hangs after a fork: it lives in a process of its own."""
    importing = [
        relative(path)
        for path in SOURCES
        if re.search(
            r"^\s*(from|import) .*\b(adapters\.renderer|import renderer)\b",
            path.read_text("utf-8"),
            re.MULTILINE,
        )
    ]
    assert importing == []


def _positional(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [argument.arg for argument in node.args.posonlyargs + node.args.args]
    return len([name for name in named if name not in {"self", "cls"}])


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether click calls it: it passes options by name."""
    return any(
        "click" in ast.unparse(item) or ".command(" in ast.unparse(item) for item in node.decorator_list
    )


def _versions(name: str) -> dict[str, str]:
    return dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)", ROOT.joinpath(name).read_text(encoding="utf-8"), re.MULTILINE)
    )
