# SPDX-License-Identifier: Apache-2.0
"""Reports."""

from __future__ import annotations

from conferral.reliable.runs import Run
from conferral.reliable.task import task
from conferral.services import reporting
from conferral.tasks.policy import MAINTENANCE
from conferral.tasks.process import runtime


@task("tasks.reports.generate_daily_issuance_report", policy=MAINTENANCE)
def generate_daily_issuance_report(run: Run) -> None:
    """Report on yesterday to every organisation."""
    reporting.generate_daily(runtime(), run)
