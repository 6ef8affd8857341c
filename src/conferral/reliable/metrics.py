# SPDX-License-Identifier: Apache-2.0
"""Counters and histograms of what runs do, by task and outcome.

Labels never hold an id, an organisation or a host. States and depths are not counted here:
they are read from the database when somebody asks, so they are right after any restart.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)

run_seconds = Histogram(
    "conferral_run_seconds", "Seconds one attempt took, from claim to record.", ["task"], buckets=_SECONDS
)
run_attempts = Counter(
    "conferral_run_attempts_total", "Attempts by the state they moved the run to.", ["task", "outcome"]
)
fenced_writes = Counter(
    "conferral_fenced_writes_total", "Late workers that were refused by the fence.", ["task"]
)
leases_expired = Counter("conferral_leases_expired_total", "Runs rescued from dead or frozen workers.")
rings = Counter("conferral_rings_total", "Runs rung by the dispatcher.", ["queue"])


def observe_run(task: str, outcome: str, seconds: float) -> None:
    """Count one attempt."""
    run_attempts.labels(task, outcome).inc()
    run_seconds.labels(task).observe(seconds)


def fenced(task: str) -> None:
    """Count one refused write."""
    fenced_writes.labels(task).inc()


def rescued(count: int) -> None:
    """Count rescued runs."""
    leases_expired.inc(count)


def rung(queue: str, count: int) -> None:
    """Count rung runs."""
    rings.labels(queue).inc(count)
