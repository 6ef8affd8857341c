# SPDX-License-Identifier: Apache-2.0
"""Whether the workers of this host give signs of life; answers in a few hundredths of a second.

Reads the files that the consumers touch. No database, no broker, no heavy import: an orchestrator asks
every few seconds. A consumer that hangs stops touching its file, although its process still runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Six missed touches. The supervisor waits for sixty seconds before it restarts anything.
OLD_AFTER_SECONDS = 30.0
USAGE = "usage: conferral health [NODE]"


def run(arguments: Sequence[str]) -> int:
    """Print one line for each node; 0 when all are alive, 1 when not, 2 for wrong usage."""
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        sys.stderr.write(f"{USAGE}\n")
        return 2
    wanted = arguments[0] if arguments else ""
    ages = _ages(_directory(), wanted)
    if not ages:
        sys.stdout.write(f"{wanted or 'no node'}: no sign of life\n")
        return 1
    for name, age in sorted(ages.items()):
        state = "alive" if age <= OLD_AFTER_SECONDS else "no sign of life"
        sys.stdout.write(f"{name}: {state}, last seen {age:.0f} s ago\n")
    return 0 if max(ages.values()) <= OLD_AFTER_SECONDS else 1


def _ages(directory: Path, wanted: str) -> dict[str, float]:
    now = time.time()
    ages = {}
    for path in directory.glob("*.alive"):
        if wanted in {"", path.stem, path.stem.partition("@")[0]}:
            try:
                ages[path.stem] = max(0.0, now - path.stat().st_mtime)
            except FileNotFoundError:
                continue
    return ages


def _directory() -> Path:
    named = os.environ.get("CONFERRAL_ALIVE_DIRECTORY")
    if named:
        return Path(named)
    data = os.environ.get("CONFERRAL_DATA_DIR")
    if data:
        return Path(data).expanduser() / "run"
    from conferral.settings.reading import home_directory

    return home_directory(os.environ) / "run"


def __getattr__(name: str) -> object:
    """Make the click command when the help asks for it; `main` calls `run` without click."""
    if name != "health":
        raise AttributeError(name)
    import click

    @click.command("health", help="Tell whether the workers of this host are alive.")
    @click.argument("node", required=False)
    def health(node: str | None) -> int:
        return run([node] if node else [])

    return health
