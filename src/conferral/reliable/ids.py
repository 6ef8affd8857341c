# SPDX-License-Identifier: Apache-2.0
"""UUIDv7 (RFC 9562): ids that sort by time, so that indexes grow at one end."""

from __future__ import annotations

import secrets
import time
import uuid


def new_run_id() -> str:
    """Return a fresh UUIDv7 as text; it is the run's id and Celery's task id.

    >>> len(new_run_id()), uuid.UUID(new_run_id()).version
    (36, 7)
    """
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def milliseconds_of(run_id: str) -> int | None:
    """Return the Unix milliseconds inside a UUIDv7, or None if the text is not one."""
    try:
        parsed = uuid.UUID(run_id)
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == 7 else None  # noqa: PLR2004 - version 7 is the point
