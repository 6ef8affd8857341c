# SPDX-License-Identifier: Apache-2.0
"""The Celery application of this process and the runtime its tasks use."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from conferral.reliable.errors import Permanent
from conferral.reliable.runs import Run
from conferral.services.runtime import Runtime
from conferral.settings import Settings
from conferral.wiring import ProcessRuntime, celery_of

settings = Settings.from_env(os.environ)
app = celery_of(settings)
runtime = ProcessRuntime(settings, app)

Burial = Callable[[Runtime, Session, Run, Permanent], None]


def buried_by(give_up: Burial) -> Any:
    """Turn a service's `give_up(rt, session, run, error)` into a task's `on_dead`."""

    def on_dead(session: Session, run: Run, error: Permanent) -> None:
        give_up(runtime(), session, run, error)

    return on_dead
