# SPDX-License-Identifier: Apache-2.0
"""Is this process alive, and may traffic be sent to it?

Redis down is `degraded` and still 200: the API accepts, and a load balancer that took us away
would turn a delay into an outage.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Response, jsonify
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from conferral.web import limits
from conferral.web.site import runtime, site

log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 1.0  # a storm of probes asks the database once a second
UNAVAILABLE: Final = 503
NEVER_EVICTS: Final = "noeviction"
FULL_RATIO: Final = 0.95  # above this Redis is about to refuse our messages
SLOW_SECONDS: Final = 3  # Retry-After: what is missing here does not come back at once

pages = Blueprint("health", __name__)
_lock = threading.Lock()
_known: dict[str, Any] = {"until": 0.0, "checks": {}}


@pages.get("/healthz")
def healthz() -> Response:
    """Say that the process answers."""
    return jsonify(status="ok")


@pages.get("/readyz")
def readyz() -> Response:
    """Say whether database, schema and storage are there; Redis only degrades."""
    checks = _checks()
    required = all(checks[name] == "ok" for name in ("database", "schema", "storage"))
    status = "unavailable" if not required else "ok" if checks["redis"] in ("ok", "not used") else "degraded"
    response = jsonify(status=status, checks=checks)
    if not required:
        response.status_code = UNAVAILABLE
        response.headers["Retry-After"] = str(SLOW_SECONDS)
    return response


def _checks() -> dict[str, str]:
    with _lock:
        if time.monotonic() >= _known["until"]:
            _known["checks"] = {
                "database": _try(_database),
                "schema": _try(_schema),
                "storage": _try(runtime().blobs.check_writable),
                "redis": _redis(site().settings.broker_url),
            }
            _known["until"] = time.monotonic() + KEPT_SECONDS
        found: dict[str, str] = _known["checks"]
        return found


def _try(check: Callable[[], None]) -> str:
    try:
        check()
    except (SQLAlchemyError, OSError, LookupError) as error:
        log.warning("not_ready", extra={"kind": type(error).__name__, "check": check.__name__})
        return "failed"
    return "ok"


def _database() -> None:
    with runtime().database.snapshot() as session:
        session.execute(text("SELECT 1"))


def _schema() -> None:
    from conferral.store import migrate  # Alembic costs every web worker 0.4 s and 20 MB; few ask for this

    with runtime().database.engine.connect() as connection:
        if not migrate.is_current(connection):
            raise LookupError("the schema is not this version's; run `conferral migrate`")


def _redis(url: str) -> str:
    if not url.startswith(("redis", "unix")):
        return "not used" if url else "failed"
    try:
        client: Redis = limits.client(url)
        memory = client.info("memory")
        client.close()
    except (RedisError, OSError):
        return "failed"
    limit = int(memory.get("maxmemory", 0))
    if limit and memory.get("maxmemory_policy", NEVER_EVICTS) != NEVER_EVICTS:
        return "evicts"  # whole queues, without an error
    return "full" if limit and int(memory["used_memory"]) > limit * FULL_RATIO else "ok"
