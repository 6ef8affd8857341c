# SPDX-License-Identifier: Apache-2.0
"""The Celery application with every task bound: `celery -A conferral.tasks.celery_app:app …`.

Importing this module is the start-up check: an unrouted task, an unregistered schedule entry
or an unconsumed queue refuses to start and says which.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from conferral import observability
from conferral.reliable.app import bind, install_worker
from conferral.reliable.task import declared_in
from conferral.tasks import anchoring, cleanup, issuance, notifications, reports, webhooks
from conferral.tasks.process import app, runtime, settings
from conferral.wiring import routing_of

TASKS = declared_in((issuance, notifications, webhooks, anchoring, reports, cleanup))
ROUTING = routing_of(settings)

bind(app, TASKS, ROUTING, runtime.context)

if settings.role in {pool.name for pool in ROUTING.pools}:
    install_worker(app, ROUTING.pool(settings.role))


@signals.setup_logging.connect(weak=False)
def _configure_logging(**_: Any) -> None:
    observability.configure()


__all__ = ["ROUTING", "TASKS", "app"]
