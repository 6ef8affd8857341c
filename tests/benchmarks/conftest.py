# SPDX-License-Identifier: Apache-2.0
"""Benchmarks print; they never judge by the clock. `./run bench` runs them all, one after another.

    ./run bench                     small sizes, a few minutes: does every benchmark still work?
    ./run bench --full              the sizes that the documentation quotes
    ./run bench --full --write      the same, and docs/benchmarks.md is written anew

A machine is never quiet, so what is quoted is a ratio of two things measured in one run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.bench_report import Report

_REPORT = pytest.StashKey[Report]()
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    group = parser.getgroup("benchmarks")
    group.addoption("--full", action="store_true", help="the sizes that the documentation quotes")
    group.addoption("--write", action="store_true", help="write docs/benchmarks.md from this run")


def pytest_configure(config: pytest.Config) -> None:
    """Make the one report of this run."""
    config.stash[_REPORT] = Report()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Return the report that all benchmarks of this run share."""
    return request.config.stash[_REPORT]


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Return whether the sizes of the documentation are wanted."""
    return bool(request.config.getoption("--full"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print all figures as one table; write the page when asked to."""
    report = config.stash[_REPORT]
    if not report.figures:
        return
    terminalreporter.section("figures")
    terminalreporter.write_line(report.text())
    if config.getoption("--write"):
        PAGE.write_text(report.page(full=bool(config.getoption("--full"))))
        terminalreporter.write_line(f"written: {PAGE}")
