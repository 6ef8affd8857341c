# SPDX-License-Identifier: Apache-2.0
"""The figures of one run of the benchmarks, as a table for a terminal and as a page of the documentation."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

_INTRODUCTION = """\
# Benchmarks

What `./run bench --full --write` printed on the day and the machine named below. Milliseconds belong to
that machine; carry the **ratios** home: each compares two things that were measured in the same run.
Differences below 2x between two runs on a shared machine are noise. A bound in the last column is the one
the design sets; a figure that misses it is left standing as it is.
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, the figure with its unit, what it is compared with, the bound."""

    section: str
    what: str
    value: str
    ratio: str
    bound: str


@dataclass
class Report:
    """All figures in the order in which they were measured."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, section: str, what: str, value: str, *, ratio: str = "", bound: str = "") -> None:
        """Add one line and print it at once, so that an interrupted run has said something."""
        self.figures.append(Figure(section, what, value, ratio, bound))
        said = " · ".join(part for part in (value, ratio, bound) if part)
        sys.stdout.write(f"\n{section}: {what}: {said}\n")

    def text(self) -> str:
        """Return the table for a terminal."""
        wide = max(len(figure.what) for figure in self.figures)
        lines: list[str] = []
        for section in self._sections():
            lines.append(f"\n{section}")
            lines += [
                f"  {one.what:<{wide}}  {one.value:>22}  {one.ratio:<34} {one.bound}".rstrip()
                for one in self.figures
                if one.section == section
            ]
        return "\n".join(lines)

    def page(self, *, full: bool) -> str:
        """Return the page of the documentation."""
        size = "the full sizes" if full else "small sizes"
        lines = [_INTRODUCTION, f"{datetime.now(UTC):%Y-%m-%d}, {size}. {machine()}", ""]
        for section in self._sections():
            lines += [f"## {section}", "", "| what | figure | compared | bound |", "|---|---|---|---|"]
            lines += [
                f"| {one.what} | {one.value} | {one.ratio} | {one.bound} |"
                for one in self.figures
                if one.section == section
            ]
            lines.append("")
        return "\n".join(lines)

    def _sections(self) -> list[str]:
        return list(dict.fromkeys(figure.section for figure in self.figures))


def machine() -> str:
    """Return the shape of this machine in one line."""
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    load = os.getloadavg()[1]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; load average of the five minutes before: {load:.1f}."
    )


def percentile(values: Sequence[float], part: float) -> float:
    """Return the nearest-rank percentile; `part` between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
