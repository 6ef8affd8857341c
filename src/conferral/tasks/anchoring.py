# SPDX-License-Identifier: Apache-2.0
"""The transparency log's sequencer."""

from __future__ import annotations

from conferral.reliable.runs import Run
from conferral.reliable.task import task
from conferral.services import anchoring
from conferral.tasks.policy import SEQUENCE
from conferral.tasks.process import runtime


@task("tasks.anchoring.sequence", policy=SEQUENCE)
def sequence(run: Run, log: str) -> None:
    """Take one turn of a log: place its waiting leaves and issue their credentials."""
    anchoring.sequence(runtime(), run, log)
