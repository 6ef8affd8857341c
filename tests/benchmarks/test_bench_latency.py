# SPDX-License-Identifier: Apache-2.0
"""How long people wait: for the 202, for the start, for the credential."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import select

from conferral.reliable.tables import runs
from conferral.store.tables import credentials
from support.bench_flask import bare_insert
from support.bench_load import Answers, Request, fire
from support.bench_processes import tree
from support.bench_report import Report, median, percentile
from support.chaos_client import wanted
from support.chaos_house import DATABASES, House, house

SECTION = "Waiting"
RATE = 200  # requests a second
POOLS = ("hp", "mail", "hooks", "chain", "lp")
KEYS = 24  # an API key may write 600 times a minute
PATIENCE_SECONDS = 600.0


@pytest.mark.parametrize("kind", DATABASES)
def test_waiting(kind: str, tmp_path: Path, report: Report, *, full: bool) -> None:
    """One click at rest; then 200 requests a second, at rest and beside a batch, against a bare insert."""
    seconds = 20.0 if full else 3.0
    with house(kind, tmp_path / "house", seed=1, keys=KEYS) as running:
        running.until_final(running.issue(10), PATIENCE_SECONDS)
        one_click(running, report, 60 if full else 10)
        bare = bare_insert(
            kind, running.database_url, tmp_path / "bare", lambda port: post(port, RATE, seconds)
        )
        told(report, f"POST of a bare Flask insert, {kind}, {RATE}/s", bare)
        with running.processes.frozen(*workers(running)):
            idle = post_credentials(running, seconds)
        bound = "p99 50 ms" if kind == "sqlite" else ""
        told(report, f"POST /credentials/issue, {kind}, {RATE}/s, pools idle", idle, bare, bound=bound)
        running.issue_batch(5_000 if full else 200)
        time.sleep(2.0)
        loaded = post_credentials(running, seconds)
        bound = "p99 50 ms" if kind == "postgresql" else "no bound: one writer"
        told(report, f"the same with the pipeline running, {kind}", loaded, bare, bound=bound)


def workers(running: House) -> list[int]:
    """Return the processes of all pools: frozen, they leave the database to the web."""
    mains = running.processes.mains()
    return [pid for name in POOLS for pid in tree(mains[name])]


def one_click(running: House, report: Report, count: int) -> None:
    """Issue one by one at rest; the times are the rows' own."""
    asked: dict[str, float] = {}
    for _ in range(count):
        (accepted,) = running.issue(1, threads=1)
        asked[accepted.credential_id] = accepted.began
        running.until_final([accepted], PATIENCE_SECONDS)
    ids = list(asked)
    issued = {
        row.id: row.issued_at.timestamp()
        for row in running.rows(
            select(credentials.c.id, credentials.c.issued_at).where(credentials.c.id.in_(ids))
        )
    }
    started = running.rows(
        select(runs.c.created_at, runs.c.started_at).where(
            runs.c.subject.in_(ids), runs.c.task == "tasks.issuance.issue_credential"
        )
    )
    waited = [(issued[one] - began) * 1000 for one, began in asked.items()]
    starts = [(row.started_at - row.created_at).total_seconds() * 1000 for row in started]
    kind = running.kind
    report.add(SECTION, f"promise to start, {kind}, at rest, p50", f"{median(starts):.0f} ms")
    report.add(
        SECTION, f"request to issued, {kind}, at rest, p50", f"{median(waited):.0f} ms", bound="150 ms"
    )


def post_credentials(running: House, seconds: float) -> Answers:
    """Ask for credentials at the rate, each under a key of its own."""
    keys = running.client.keys
    requests = [
        Request("/credentials/issue", wanted(number), {"Authorization": f"Bearer {keys[number % len(keys)]}"})
        for number in range(int(RATE * seconds))
    ]
    answers = fire(running.installation.ports[0], requests, RATE)
    assert set(answers.statuses) == {202}, answers.statuses
    return answers


def post(port: int, rate: int, seconds: float) -> Answers:
    """Ask the bare server at the rate."""
    requests = [Request("/", wanted(number), {}) for number in range(int(rate * seconds))]
    answers = fire(port, requests, rate)
    assert set(answers.statuses) == {202}, answers.statuses
    return answers


def told(
    report: Report, what: str, answers: Answers, bare: Answers | None = None, *, bound: str = ""
) -> None:
    """Add p50 and p99; from the moment a request was due, so a stalled server cannot hide its queue."""
    p50, p99 = (percentile(answers.milliseconds, part) for part in (0.5, 0.99))
    ratio = ""
    if bare is not None:
        bare50, bare99 = (percentile(bare.milliseconds, part) for part in (0.5, 0.99))
        ratio = f"p50 {p50 / bare50:.1f}x, p99 {p99 / bare99:.1f}x bare"
    report.add(SECTION, what, f"p50 {p50:.0f} ms, p99 {p99:.0f} ms", ratio=ratio, bound=bound)
