# SPDX-License-Identifier: Apache-2.0
"""Plain Celery, as its documentation has it, for a comparison: `celery -A support.bench_celery`.

Late acknowledgement, prefetch 1, JSON: what a careful team would set. Nothing else is kept.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

BROKER_VARIABLE = "BENCH_BROKER"
RESULTS_VARIABLE = "BENCH_RESULTS"

app = Celery("bench", broker=os.environ.get(BROKER_VARIABLE), backend=os.environ.get(RESULTS_VARIABLE))
app.conf.update(
    task_serializer="json",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=RESULTS_VARIABLE not in os.environ,
    task_default_queue="bench",
)


@app.task(name="bench.nothing")  # type: ignore[untyped-decorator]
def nothing(*_: Any) -> str:
    """Do nothing."""
    return "done"
