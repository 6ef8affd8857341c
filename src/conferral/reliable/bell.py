# SPDX-License-Identifier: Apache-2.0
"""Ring bells: publish the Celery messages that say "these runs are due".

A message carries ids and nothing else. It is published once, quickly, without retrying; when
Redis is away the caller is told which bells were not rung and the dispatcher rings them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery, states
from celery.utils import uuid
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from conferral.reliable.errors import Retryable
from conferral.reliable.outbox import Ring, Shown

log = logging.getLogger(__name__)

# Redis was just found away: do not let every request wait for its connection time-out.
QUIET_SECONDS = 1.0
UNREACHABLE = (OperationalError, RedisError, OSError)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Runs of one task that travel in one message."""

    task: str
    queue: str
    run_ids: tuple[str, ...]


class Bell:
    """The publishing side of one Celery application in one process."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._quiet_until = 0.0

    def ring(self, rings: Sequence[Ring]) -> list[str]:
        """Publish one message for each run; return the ids that were not surely rung."""
        return self.ring_bundles([Bundle(ring.task, ring.queue, (ring.run_id,)) for ring in rings])

    def ring_bundles(self, bundles: Sequence[Bundle]) -> list[str]:
        """Publish one message for each bundle; return the ids that were not surely rung."""
        unrung = [run_id for bundle in bundles for run_id in bundle.run_ids]
        if not bundles or self._is_quiet():
            return unrung
        try:
            with self._app.producer_or_acquire() as producer, producer.batch():
                for bundle in bundles:
                    self._publish(producer, bundle)
        except UNREACHABLE as error:
            self._be_quiet("ring_failed", error)
            return unrung
        return []

    def show(self, shown: Iterable[Shown]) -> None:
        """Let AsyncResult(task_id) see these states; best effort, nothing of ours reads it."""
        for each in shown:
            if self._is_quiet():
                return
            failed = each.state in (states.FAILURE, states.RETRY)
            result = Retryable(str(each.result)) if failed else each.result
            try:
                self._app.backend.store_result(each.run_id, result, each.state)
            except UNREACHABLE as error:
                self._be_quiet("result_not_shown", error)

    def _publish(self, producer: Any, bundle: Bundle) -> None:
        alone = len(bundle.run_ids) == 1
        self._app.send_task(
            bundle.task,
            args=(list(bundle.run_ids),),
            task_id=bundle.run_ids[0] if alone else uuid(),
            queue=bundle.queue,
            producer=producer,
            retry=False,
            ignore_result=True,
        )

    def _is_quiet(self) -> bool:
        return time.monotonic() < self._quiet_until

    def _be_quiet(self, event: str, error: Exception) -> None:
        self._quiet_until = time.monotonic() + QUIET_SECONDS
        log.warning(event, extra={"code": type(error).__name__})
