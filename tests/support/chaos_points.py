# SPDX-License-Identifier: Apache-2.0
"""Every crash point that the source has, so that none is forgotten; and arming them in a running house."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import conferral

_CALL = re.compile(r"""crash_point\(\s*["']([a-z_.]+)["']\s*\)""")
SOURCE = Path(str(conferral.__file__)).parent
# Where it is explained, not passed.
_EXPLAINED = {"reliable/crash_points.py", "reliable/testing.py"}
# The last moment before the peer's answer is known, or before it is recorded: a repeat is not avoidable.
MAY_REPEAT = frozenset({"smtp.dot", "smtp.accepted", "http.sent", "http.answered", "settle.before_commit"})


def points() -> dict[str, list[str]]:
    """Return every crash point by name, with the files that pass it."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name in _EXPLAINED:
            continue
        for point in _CALL.findall(path.read_text(encoding="utf-8")):
            found.setdefault(point, []).append(name)
    return found


@dataclass(frozen=True)
class Fired:
    """A process that died at a point: when, in seconds since the epoch."""

    point: str
    pid: int
    at: float


@dataclass(frozen=True)
class Armory:
    """The folder that CONFERRAL_CRASH_AT names."""

    folder: Path

    def arm(self, point: str, *, nth: int = 1, only: str | None = None, times: int = 1) -> None:
        """Let the nth passage from now on be the last of its process; with `times`, the next ones, too.

        Args:
            point: one of `points()`.
            nth: which passage of any process.
            only: while this task (its name), or this run (its id), is executed.
            times: how many passages in a row.
        """
        place = point if only is None else f"{point},{only}"
        for number in range(nth, nth + times):
            (self.folder / f"{place}:{number}").touch()

    def disarm(self) -> list[str]:
        """Forget what is armed and has not fired; return it."""
        left = [path for path in self.folder.iterdir() if "@" not in path.name]
        for path in left:
            path.unlink(missing_ok=True)
        return sorted(path.name for path in left)

    def fired(self) -> list[Fired]:
        """Return every death so far, in order."""
        found = []
        for path in self.folder.iterdir():
            place, *rest = path.name.split("@")
            if rest:
                found.append(Fired(place.partition(":")[0], int(rest[0]), int(rest[1]) / 1e9))
        return sorted(found, key=lambda one: one.at)
