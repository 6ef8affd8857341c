# SPDX-License-Identifier: Apache-2.0
"""A worker of plain Celery beside a Redis, for a comparison of like with like."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from celery import Celery

import support
from support import bench_celery
from support.chaos_processes import until

READY_SECONDS = 60.0
PATIENCE_SECONDS = 300.0


@dataclass
class PlainCelery:
    """A running worker, the application to send with, and how to see that everything is done."""

    app: Celery
    process: subprocess.Popen[bytes]
    url: str

    def until_done(self) -> float:
        """Wait until nothing is queued and nothing unacknowledged; return the seconds."""
        with redis.Redis.from_url(f"{self.url}/0") as server:
            return until(lambda: server.llen("bench") == 0 and server.hlen("unacked") == 0, PATIENCE_SECONDS)


@contextlib.contextmanager
def plain_celery(url: str, folder: Path, *, kind: str, slots: int, results: bool) -> Iterator[PlainCelery]:
    """Yield plain Celery with one worker of a kind (`prefork`, `threads`); it is ended afterwards."""
    folder.mkdir(exist_ok=True)
    broker, backend = f"{url}/0", f"{url}/1"
    tests = str(Path(next(iter(support.__path__))).parent)
    told = {bench_celery.BROKER_VARIABLE: broker, "PYTHONPATH": tests, "C_FORCE_ROOT": "1"}
    if results:
        told[bench_celery.RESULTS_VARIABLE] = backend
    log_file = folder / "celery.log"
    words = ["worker", "-n", "bench@%h", "-Q", "bench", "-P", kind, "-c", str(slots), "-l", "INFO"]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "support.bench_celery:app", *words,
             "--without-gossip", "--without-mingle"],
            env={**os.environ, **told}, stdout=log, stderr=log, cwd=folder, start_new_session=True,
        )  # fmt: skip
    app = Celery("sender", broker=broker, backend=backend if results else None)
    app.conf.update(task_serializer="json", task_default_queue="bench", task_ignore_result=not results)
    try:
        until(lambda: b"ready." in log_file.read_bytes(), READY_SECONDS, log_file.read_text)
        yield PlainCelery(app, process, url)
    finally:
        app.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
