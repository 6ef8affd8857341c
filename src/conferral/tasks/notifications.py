# SPDX-License-Identifier: Apache-2.0
"""E-mail."""

from __future__ import annotations

from conferral.reliable.runs import Run
from conferral.reliable.task import MAX_BUNDLE, task
from conferral.services import emailing
from conferral.tasks.policy import EMAIL
from conferral.tasks.process import buried_by, runtime

GIVE_UP = buried_by(emailing.give_up)


@task("tasks.notifications.send_issuance_email", policy=EMAIL, on_dead=GIVE_UP, bundle=MAX_BUNDLE)
def send_issuance_email(run: Run, delivery_id: str) -> None:
    """Tell one recipient that the credential is issued."""
    emailing.send(runtime(), run, delivery_id)


@task("tasks.notifications.send_status_email", policy=EMAIL, on_dead=GIVE_UP, bundle=MAX_BUNDLE)
def send_status_email(run: Run, delivery_id: str) -> None:
    """Tell one recipient that the credential is revoked, suspended, in force again, or corrected."""
    emailing.send(runtime(), run, delivery_id)


@task("tasks.notifications.send_report_email", policy=EMAIL, on_dead=GIVE_UP)
def send_report_email(run: Run, delivery_id: str) -> None:
    """Send one day's report to an owner."""
    emailing.send_report(runtime(), run, delivery_id)
