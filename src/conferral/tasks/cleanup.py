# SPDX-License-Identifier: Apache-2.0
"""Cleaning up."""

from __future__ import annotations

from conferral.reliable.runs import Run
from conferral.reliable.task import task
from conferral.services import housekeeping
from conferral.services.auditing import sealing
from conferral.tasks.policy import MAINTENANCE
from conferral.tasks.process import runtime


@task("tasks.cleanup.purge_expired_sessions", policy=MAINTENANCE)
def purge_expired_sessions(run: Run) -> None:
    """Forget what may be forgotten."""
    housekeeping.purge_expired_sessions(runtime(), run)


@task(sealing.TASK, policy=MAINTENANCE)
def seal_audit_trail(run: Run) -> None:
    """Seal what the audit trail has gained."""
    sealing.seal(runtime(), run)
