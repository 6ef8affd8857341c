# SPDX-License-Identifier: Apache-2.0
"""Logs: one JSON line an event, with the ids that were bound; never a name, an address or a secret."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "data"}
_SECRETS: Final = re.compile(
    r"conferral_(?:live|test)_\w+|whsec_[\w+/=]+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)|[\w.+-]+@[\w-]+\.[\w.-]+"
)
MAX_VALUE: Final = 2_000  # characters of one field: a log is no archive
# Celery says "received" and "succeeded" for every message; the rows say it better.
QUIET: Final = ("fontTools", "amqp", "kombu", "celery.worker.strategy", "celery.app.trace")


class JsonFormatter(logging.Formatter):
    """One line: ts, level, event, logger, and whatever was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; texts that look like secrets or addresses are masked."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": _masked(record.getMessage()),
            "logger": record.name,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = _masked(value) if isinstance(value, str) else value
        if record.exc_info:
            line["trace"] = _masked(self.formatException(record.exc_info))
        return json.dumps(line, default=str, ensure_ascii=False)


def configure(level: str = "INFO") -> None:
    """Send every log line of this process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its warnings quote whole addresses, and an endpoint's path may hold a token.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _masked(text: str) -> str:
    return _SECRETS.sub("***", text[:MAX_VALUE])
