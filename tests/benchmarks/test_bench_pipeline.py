# SPDX-License-Identifier: Apache-2.0
"""The whole pipeline: real Redis, real workers, a mail relay and a webhook receiver beside it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.bench_effects import bare_effects
from support.bench_processes import measured, memory_mib, tree
from support.bench_report import Report
from support.chaos_house import DATABASES, House, house

SECTION = "The whole pipeline"
WARM_UP = 60
REST_SECONDS = 10.0
PATIENCE_SECONDS = 600.0


@pytest.mark.parametrize("kind", DATABASES)
def test_cpu_and_rate_of_a_batch(kind: str, tmp_path: Path, report: Report, *, full: bool) -> None:
    """Every credential of a batch is rendered, signed, logged, mailed and announced; the CPU of all of it."""
    count = 2_000 if full else 150
    with house(kind, tmp_path / kind, seed=1) as running:
        issue(running, WARM_UP)
        resting = rest(running)
        assert running.installation.process is not None
        with measured(running.installation.process.pid, without=peers(running)) as cost:
            issue(running, count)
        sent = {entry["message_id"] for entry in running.mails.seen() if entry.get("message_id")}
        assert len(sent) == WARM_UP + count
        bare = bare_effects(200 if full else 30)
        memory(running, report)
    worked = cost.cpu_seconds - resting * cost.wall_seconds
    each, share = worked / count * 1000, resting * cost.wall_seconds / count * 1000
    report.add(
        SECTION,
        f"CPU a credential, {kind}, batch of {count:,}",
        f"{each:.1f} ms",
        ratio=f"{each / bare.total_ms:.2f}x the bare effects ({bare.total_ms:.1f} ms)",
        bound="2.5x; 1.8x with shapes",
    )
    report.add(SECTION, f"the same, with what the processes cost at rest, {kind}", f"{each + share:.1f} ms")
    report.add(SECTION, f"credentials a second, {kind}", f"{count / cost.wall_seconds:.1f}")


def issue(running: House, count: int) -> None:
    """Issue a batch and wait until everything about it is final."""
    batch = running.issue_batch(count)
    running.until_final([batch], PATIENCE_SECONDS)


def peers(running: House) -> list[int]:
    """Return the processes that are not our code: Redis. The relay and the receiver are not below us."""
    return [pid for name, pid in running.processes.mains().items() if name == "redis"]


def rest(running: House) -> float:
    """Return the CPU seconds a second that everything costs when there is nothing to do."""
    assert running.installation.process is not None
    with measured(running.installation.process.pid, without=peers(running)) as cost:
        time.sleep(REST_SECONDS)
    return cost.cpu_seconds / cost.wall_seconds


def memory(running: House, report: Report) -> None:
    """Add the memory of every process, what is shared counted once."""
    section, total = f"Memory after {WARM_UP} credentials and a batch, {running.kind}", 0.0
    for name, pid in sorted(running.processes.mains().items()):
        mib = memory_mib(tree(pid))
        total += mib
        report.add(section, name, f"{mib:.0f} MiB")
    report.add(section, "all", f"{total:.0f} MiB", bound="1,024 MiB")
