# SPDX-License-Identifier: Apache-2.0
"""Webhooks."""

from __future__ import annotations

from conferral.reliable.runs import Run
from conferral.reliable.task import task
from conferral.services import notifying
from conferral.tasks.policy import WEBHOOK
from conferral.tasks.process import buried_by, runtime

BUNDLE = 8  # of one endpoint; it ends at the first failure, so a slow endpoint delays itself only


@task(
    "tasks.webhooks.post_event",
    policy=WEBHOOK,
    on_dead=buried_by(notifying.give_up),
    bundle=BUNDLE,
    stops_at_failure=True,
)
def post_event(run: Run, delivery_id: str) -> None:
    """Post one event to one endpoint."""
    notifying.post(runtime(), run, delivery_id)
