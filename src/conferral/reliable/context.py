# SPDX-License-Identifier: Apache-2.0
"""What the reliable layer is handed by the program around it; built once per process, after fork."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from sqlalchemy.orm import Session

from conferral.reliable.routing import Routing


@dataclass(frozen=True, slots=True)
class Context:
    """The database, the clock and the figures.

    Attributes:
        transaction: opens a write transaction that commits at its end; its sessions carry
            `outbox.session_info` and their outbox is delivered after the commit.
        snapshot: opens a read-only view.
        now: the clock all hosts share, aware UTC.
        routing: queues, routes and pools.
        random: jitter.
        lease_seconds, heartbeat_seconds: a lease must survive two missed heartbeats.
        sweep_seconds: the dispatcher's pause between passes.
        retry_scale: multiplies every retry delay; 1 in production.
        ring_again_seconds: a message not claimed by then was lost, or its queue is slow.
        record_pauses_seconds: how long a worker that cannot record a failure waits between
            its tries; together far less than a lease.
    """

    transaction: Callable[[], AbstractContextManager[Session]]
    snapshot: Callable[[], AbstractContextManager[Session]]
    now: Callable[[], datetime]
    routing: Routing
    random: Random = field(default_factory=Random)
    lease_seconds: float = 30.0
    heartbeat_seconds: float = 10.0
    sweep_seconds: float = 0.5
    retry_scale: float = 1.0
    ring_again_seconds: float = 30.0
    record_pauses_seconds: tuple[float, ...] = (0.2, 2.0)
