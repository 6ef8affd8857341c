# SPDX-License-Identifier: Apache-2.0
"""How gunicorn serves the pages and API (role web) and the live streams (role streams).

Loaded by `gunicorn -c python:conferral.web.gunicorn_config`; `conferral api` and `conferral streams`
set the role. Nothing is opened here: each worker builds its own database and clients after fork.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from conferral.settings import Settings

# One process shares the snapshots of all streams; each stream holds a thread for its life.
STREAM_THREADS: Final = 256
WEB_THREADS: Final = 8
# Streams reconnect by themselves; requests are given time to end.
STREAM_GRACE_SECONDS: Final = 3
WEB_GRACE_SECONDS: Final = 10

_settings = Settings.from_env(os.environ)
_is_streams = _settings.role == "streams"

wsgi_app = "conferral.web.app:create_app()"
proc_name = f"conferral-{_settings.role}"
worker_class = "gthread"
_host = f"[{_settings.http_host}]" if ":" in _settings.http_host else _settings.http_host
# Metrics leave by a port of their own, so that a proxy cannot publish them by accident.
bind = (
    [f"{_host}:{_settings.stream_port}", f"{_host}:{_settings.metrics_port}"]
    if _is_streams
    else [f"{_host}:{_settings.http_port}"]
)
workers = 1 if _is_streams else _settings.web_workers
threads = STREAM_THREADS if _is_streams else WEB_THREADS
# Connections above this wait in the kernel; gthread keeps idle ones outside of its threads.
worker_connections = 4 * threads
graceful_timeout = STREAM_GRACE_SECONDS if _is_streams else WEB_GRACE_SECONDS
# The whole worker hangs, not one request: threads answer for their own deadlines.
timeout = 60
keepalive = 5
# Native libraries leak slowly. Streams are left alone: a recycled worker would end them all.
max_requests = 0 if _is_streams else 20_000
max_requests_jitter = 0 if _is_streams else 2_000
# The heartbeat file of a worker must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- memory, made by gunicorn
# Engines and clients that exist before a fork would be shared by all workers.
preload_app = False
# gunicorn's own remote control is a second door; SIGTERM is enough.
control_socket_disable = True
limit_request_line = 4_094
limit_request_fields = 64
limit_request_field_size = 8_190
# Nobody is believed unless he is named.
forwarded_allow_ips = ",".join(str(network) for network in _settings.trusted_proxies)
# Requests are logged by the application, with their ids and without addresses.
accesslog = None
errorlog = "-"
loglevel = "warning"


def on_starting(_server: Any) -> None:
    """Import the application before the workers fork: they share its code, and nothing else."""
    import_module("conferral.web.app")
