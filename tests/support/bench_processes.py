# SPDX-License-Identifier: Apache-2.0
"""What processes cost: CPU seconds and memory of a whole tree of them, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.chaos_processes import descendants

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """CPU seconds and wall seconds of what happened inside a `with measured(…)`."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time so far of processes and of the children they have already waited for."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            fields = stat[stat.rindex(")") + 2 :].split()
            total += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return total / _TICKS


def tree(pid: int, *, without: Iterable[int] = ()) -> list[int]:
    """Return a process and all below it, except some with all that is below them."""
    left_out = {each for root in without for each in (root, *descendants(root))}
    return [each for each in (pid, *descendants(pid)) if each not in left_out]


@contextlib.contextmanager
def measured(pid: int, *, without: Iterable[int] = ()) -> Iterator[Cost]:
    """Measure a tree of processes while the body runs; the figures are there when it ends."""
    cost, left_out = Cost(), list(without)
    before, began = cpu_seconds(tree(pid, without=left_out)), time.monotonic()
    yield cost
    cost.wall_seconds = time.monotonic() - began
    cost.cpu_seconds = cpu_seconds(tree(pid, without=left_out)) - before


def memory_mib(pids: Iterable[int]) -> float:
    """Return the proportional memory of processes: what they share is counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
