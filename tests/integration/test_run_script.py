# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with nothing but the script."""
    shutil.copy(ROOT / "run", tmp_path / "run")
    return tmp_path


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script there."""
    return subprocess.run(
        ["./run", *words],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_plain_posix_shell() -> None:
    """It runs before anything is installed, also where sh is not bash."""
    assert (ROOT / "run").read_text().startswith("#!/bin/sh\n")
    shell = shutil.which("dash") or "/bin/sh"
    assert subprocess.run([shell, "-n", ROOT / "run"], check=False).returncode == 0


def test_an_unknown_extra_is_refused_before_anything_is_made(checkout: Path) -> None:
    """The message names what there is."""
    done = run(checkout, CONFERRAL_EXTRAS="postgres evn")
    assert done.returncode == 1
    assert "CONFERRAL_EXTRAS names evn" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_interpreter_that_starts_nothing_is_passed_over(checkout: Path) -> None:
    """A version manager's shim exists for every version and works for one."""
    shims = checkout / "shims"
    shims.mkdir()
    for name in ("python3.11", "python3.12", "python3"):
        (shims / name).write_text("#!/bin/sh\necho 'no such version' >&2\nexit 127\n")
        (shims / name).chmod(0o755)
    good = shutil.which("python3.11") or shutil.which("python3") or ""
    # Only the search itself: cut before anything would be installed.
    script = (checkout / "run").read_text().partition("command=${1:-up}")[0] + "find_python\n"
    (checkout / "run").write_text(script.replace("python3.14 python3 /usr/bin/python3", f"python3.14 {good}"))
    done = run(checkout, PATH=f"{shims}:/usr/bin:/bin", PYTHON="")
    assert "no such version" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip().startswith(str(shims))


@pytest.mark.parametrize(
    ("words", "passed_on"),
    [
        ((), "tests/chaos -s"),
        (("kill_child",), "tests/chaos -s -k kill_child"),
        (("--seed", "7", "zombie", "poison", "--long"), "tests/chaos -s --seed 7 --long -k zombie or poison"),
        (("--chaos-database", "sqlite", "-x"), "tests/chaos -s --chaos-database sqlite -x"),
    ],
)
def test_chaos_takes_names_of_trials_and_options_for_pytest(
    checkout: Path, words: tuple[str, ...], passed_on: str
) -> None:
    """Words are names; an option keeps the word that belongs to it."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\n[ "$1" = -I ] && echo installed || echo "$@"\n')
    python.chmod(0o755)
    (checkout / ".venv" / "conferral-installed").write_text("installed\n")
    done = run(checkout, "chaos", *words)
    assert done.stdout.strip() == f"-P -m pytest {passed_on}", done.stderr
