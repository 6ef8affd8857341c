# SPDX-License-Identifier: Apache-2.0
"""Celery's settings as they are safe to run, each with its reason beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Early redelivery is refused by the claim; a long one only delays what a killed worker held.
VISIBILITY_TIMEOUT_SECONDS: Final = 60
RESULT_EXPIRES_SECONDS: Final = 3_600  # a convenience for AsyncResult; the row is the truth
REDIS_SCHEMES: Final = ("redis", "sentinel", "unix")

CELERY_SETTINGS: Final[Mapping[str, Any]] = {
    # One missed place of three leaves 3,600 s: here, the broker's and the results' options.
    "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
    "result_backend_transport_options": {
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        "retry_policy": {"max_retries": 0},  # the backend's own would try for 20 s
    },
    "redis_socket_keepalive": True,
    "redis_backend_health_check_interval": 25,
    "result_backend_always_retry": False,
    "result_backend_max_retries": 0,  # showing a result is best effort
    "broker_connection_retry_on_startup": True,  # Redis may come later than we do
    "broker_connection_max_retries": None,  # and may go for as long as it likes
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # the lease decides, not a socket
    "accept_content": ["json"],  # pickle in a broker is remote code execution
    "task_serializer": "json",
    "result_serializer": "json",
    "timezone": "UTC",
    "enable_utc": True,
    "task_acks_late": True,  # with the next line: a dead child's message comes back
    "task_reject_on_worker_lost": True,
    "task_acks_on_failure_or_timeout": False,  # nor is the message of a child cut by its time limit
    "worker_prefetch_multiplier": 1,  # a slot takes what it executes, nothing more
    "task_track_started": True,
    "task_ignore_result": True,  # a stored result costs 30 to 70 % more CPU a task
    "result_expires": RESULT_EXPIRES_SECONDS,
    "task_create_missing_queues": False,  # an unrouted task is an error, not a queue nobody reads
    "task_publish_retry": False,  # the dispatcher rings again
    "worker_send_task_events": True,  # Flower
    "task_send_sent_event": False,  # one message more a task, and nobody reads it
    "worker_hijack_root_logger": False,
    "worker_max_tasks_per_child": 5_000,  # native libraries leak slowly; a fork is cheap
    "worker_max_memory_per_child": 400_000,  # KiB
    "beat_max_loop_interval": 1,
}


def transport_options(broker_url: str, socket_seconds: float) -> dict[str, Any]:
    """Return the broker's options; those of Redis must not be passed to another broker.

    Args:
        broker_url: where messages go.
        socket_seconds: how long one exchange may take: a half-open connection hangs a
            publish for ever.
    """
    if not broker_url.startswith(REDIS_SCHEMES):
        return {}
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        # Kombu's default sweep for lost messages runs every 100 s behind a mutex of 300 s.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_timeout": socket_seconds,
        "socket_connect_timeout": socket_seconds,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "max_retries": 1,  # of a publish: nobody waits for Redis
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
    }
