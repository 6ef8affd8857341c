# SPDX-License-Identifier: Apache-2.0
"""Ring bells: publish the Celery messages that say "these runs are due".

A message carries ids and nothing else. It is published once, quickly, without retrying; when
Redis is away the caller is told which bells were not rung and the dispatcher rings them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery, states
from celery.exceptions import TaskRevokedError
from celery.utils import uuid
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]  # newer than stubs
from redis.exceptions import RedisError

from conferral.reliable.errors import Permanent, Retryable
from conferral.reliable.outbox import Ring, Shown

log = logging.getLogger(__name__)

# Redis was just found away: do not let every request wait for its connection time-out. Meanwhile
# the dispatcher rings, at most a sweep later; one request in five seconds finds out for all.
QUIET_SECONDS = 5.0
# A bell that takes this long is as good as none: people wait for their answer, the dispatcher can.
SLOW_SECONDS = 0.25
UNREACHABLE = (OperationalError, BatchPublishError, RedisError, OSError)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Runs of one task that travel in one message."""

    task: str
    queue: str
    run_ids: tuple[str, ...]


class Bell:
    """The publishing side of one Celery application in one process; its threads share it.

    Args:
        app: the application whose messages are published.
        quiet_seconds: how long nothing is asked of a Redis that was away or slow.
        slow_seconds: an answer that takes longer counts as slow.
    """

    def __init__(
        self, app: Celery, *, quiet_seconds: float = QUIET_SECONDS, slow_seconds: float = SLOW_SECONDS
    ) -> None:
        self._app = app
        self._quiet_seconds = quiet_seconds
        self._slow_seconds = slow_seconds
        self._quiet_until = 0.0
        self._suspects = False
        self._asking = threading.Lock()

    @property
    def is_quiet(self) -> bool:
        """Return whether Redis was found away or slow a moment ago."""
        return time.monotonic() < self._quiet_until

    def ring(self, rings: Sequence[Ring]) -> list[str]:
        """Publish one message for each run; return the ids that were not surely rung."""
        return self.ring_bundles([Bundle(ring.task, ring.queue, (ring.run_id,)) for ring in rings])

    def ring_bundles(self, bundles: Sequence[Bundle]) -> list[str]:
        """Publish one message for each bundle; return the ids that were not surely rung."""
        if not bundles or self._asked("ring_failed", lambda: self._publish_all(bundles)):
            return []
        return [run_id for bundle in bundles for run_id in bundle.run_ids]

    def show(self, shown: Iterable[Shown]) -> None:
        """Let AsyncResult(task_id) see these states; best effort, nothing of ours reads it."""
        states_to_show = list(shown)
        if states_to_show:
            self._asked("result_not_shown", lambda: self._store_all(states_to_show))

    def _asked(self, failed: str, ask: Callable[[], None]) -> bool:
        """Ask something of Redis; return whether it surely did it.

        Once Redis was found away, one thread at a time finds out whether it is back, and
        everybody else goes on at once: the rows stand, whatever happens here.
        """
        if self.is_quiet:
            return False
        asks_alone = self._suspects
        if asks_alone and not self._asking.acquire(blocking=False):
            return False
        began = time.monotonic()
        try:
            ask()
        except UNREACHABLE as error:
            self._suspects = True
            self._quiet_until = time.monotonic() + self._quiet_seconds
            log.warning(failed, extra={"code": type(error).__name__})
            return False
        except Exception:
            # The caller has committed; an error here must not look like a failed commit.
            log.exception(failed, extra={"code": "internal"})
            return False
        else:
            self._suspects = time.monotonic() - began > self._slow_seconds
            if self._suspects:
                self._quiet_until = time.monotonic() + self._quiet_seconds
            return True
        finally:
            if asks_alone:
                self._asking.release()

    def _publish_all(self, bundles: Sequence[Bundle]) -> None:
        with self._app.producer_or_acquire() as producer, producer.batch():
            for bundle in bundles:
                self._publish(producer, bundle)

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

    def _store_all(self, shown: Sequence[Shown]) -> None:
        for each in shown:
            result = _ERRORS[each.state](str(each.result)) if each.state in _ERRORS else each.result
            self._app.backend.store_result(each.run_id, result, each.state)


# What AsyncResult.get() raises, or shows as the reason of a retry.
_ERRORS: Mapping[str, type[Exception]] = {
    states.RETRY: Retryable,
    states.FAILURE: Permanent,
    states.REVOKED: TaskRevokedError,
}
