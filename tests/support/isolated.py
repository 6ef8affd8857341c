# SPDX-License-Identifier: Apache-2.0
"""The offline verifier as a stranger runs it: one file, isolated, nothing but `cryptography` to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conferral import standalone

# What `cryptography` itself is made of.
ALLOWED = ("cryptography", "_cffi_backend", "cffi")
_GUARD = """
import runpy, sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {allowed!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Guard())
for name in ("socket", "_socket", "subprocess"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path, *words: str | Path) -> dict[str, Any]:
    """Run the program on a file and return what it says; nothing of ours can be imported, nothing fetched."""
    program = folder / "verify.py"
    program.write_bytes(standalone.program())
    guard = _GUARD.format(allowed=ALLOWED)
    done = subprocess.run(
        [sys.executable, "-I", "-c", guard, str(program), *map(str, words), "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": "/nowhere"},
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    told = dict(json.loads(done.stdout)) if done.stdout else {"error": done.stderr}
    assert told.get("exit_code", 2) == done.returncode
    return told
