# SPDX-License-Identifier: Apache-2.0
"""A stand with a database, a Redis, and real Celery processes that tests may kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis as client
from celery import Celery
from sqlalchemy import func, select

import support
from conferral.reliable import alive
from conferral.reliable.promises import promise
from conferral.reliable.tables import attempts, metadata, runs
from conferral.store.engine import Database
from support import reliable_tasks
from support.redis import RedisProcess, redis_process

READY_SECONDS = 60.0
PATIENCE_SECONDS = 45.0
_TESTS = str(Path(next(iter(support.__path__))).parent)


@dataclass
class Node:
    """One started Celery process and its log."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def pid(self) -> int:
        """Its main process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it said so far."""
        return self.log_file.read_text(errors="replace")

    def children(self) -> list[int]:
        """Return its forked children that live."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    def signal(self, number: int) -> None:
        """Send a signal to the main process only."""
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until it ended; return its status."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """End it and all it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


@dataclass
class Stand:
    """Everything one test needs, and short words for what it does all the time."""

    folder: Path
    redis: RedisProcess
    url: str
    database: Database
    app: Celery
    nodes: list[Node] = field(default_factory=list)

    def worker(self, pool: str, name: str = "", *, arguments: tuple[str, ...] = (), **told: Any) -> Node:
        """Start a worker of a pool and wait until it consumes."""
        kind = {"fork": "prefork", "wait": "threads"}[pool]
        node = name or pool
        words = [
            *("worker", "-n", f"{node}@%h", "-Q", pool, "-P", kind, "-c", "2", "-l", "INFO"),
            *("--without-gossip", "--without-mingle", *arguments),
        ]
        started = self._start(node, words, pool=pool, **told)
        self.until(lambda: "ready." in started.log, READY_SECONDS, lambda: started.log)
        return started

    def beat(self, name: str, schedule: dict[str, Any]) -> Node:
        """Start a Beat; it writes nothing into the folder where it is started."""
        words = ["beat", "-S", "conferral.reliable.beat:SingletonScheduler", "-l", "INFO"]
        return self._start(name, words, schedule=schedule)

    def promise(self, task: str, *args: str, **options: Any) -> str:
        """Promise in a transaction of its own, and ring."""
        with self.database.transaction() as session:
            return promise(session, task, list(args), **options)

    def row(self, run_id: str) -> Any:
        """Return the row of a run."""
        with self.database.snapshot() as session:
            return session.execute(select(runs).where(runs.c.id == run_id)).one()

    def states(self) -> dict[str, int]:
        """Count runs by state."""
        with self.database.snapshot() as session:
            counted = session.execute(select(runs.c.state, func.count()).group_by(runs.c.state))
            return {row[0]: row[1] for row in counted}

    def outcomes(self, run_id: str) -> list[str]:
        """Return the outcomes of a run's attempts."""
        with self.database.snapshot() as session:
            statement = select(attempts.c.outcome).where(attempts.c.run_id == run_id)
            return list(session.execute(statement.order_by(attempts.c.number)).scalars())

    def effects(self, run_id: str | None = None) -> list[list[str]]:
        """Return the lines left by effects: run, word, attempt, pid."""
        path = self.folder / "effects"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if run_id is None or line[0] == run_id]

    def until_state(self, run_id: str, state: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Wait until a run has a state; return its row."""
        self.until(lambda: self.row(run_id).state == state, seconds, lambda: f"{self.row(run_id)}{self.logs}")
        return self.row(run_id)

    def until(
        self, holds: Callable[[], Any], seconds: float = PATIENCE_SECONDS, why: Callable[[], Any] = str
    ) -> None:
        """Wait until something holds, looking a hundred times a second, or fail."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds} s: {why()}"
            time.sleep(0.01)

    @property
    def logs(self) -> str:
        """What all processes said."""
        return "\n".join(f"--- {node.log_file.name}\n{node.log[-6000:]}" for node in self.nodes)

    def server(self) -> client.Redis:
        """Return a client of the broker's database."""
        return client.Redis.from_url(f"{self.redis.url}/0")

    def _start(self, name: str, words: list[str], **told: Any) -> Node:
        log_file = self.folder / f"{name}-{len(self.nodes)}.log"
        (self.folder / "alive").mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((_TESTS, os.environ.get("PYTHONPATH", ""))),
            "RELIABLE_TEST_APP": json.dumps({"database_url": self.url, "redis_url": self.redis.url, **told}),
            reliable_tasks.FOLDER_VARIABLE: str(self.folder),
            alive.DIRECTORY_VARIABLE: str(self.folder / "alive"),
            "PYTHONUNBUFFERED": "1",
            "C_FORCE_ROOT": "1",
        }
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "support.reliable_app:app", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        self.nodes.append(Node(process, log_file))
        return self.nodes[-1]


@contextlib.contextmanager
def stand(database_url: str | None = None) -> Iterator[Stand]:
    """Yield a stand; SQLite unless another database is named. Everything is ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="conferral-stand-") as name, redis_process() as server:
        folder = Path(name)
        url = database_url or f"sqlite:///{folder}/runs.db"
        app, make_context = reliable_tasks.build(url, server.url, socket_seconds=0.5)
        make_context()
        database = reliable_tasks.databases.pop()
        metadata.create_all(database.engine)
        found = Stand(folder, server, url, database, app)
        try:
            yield found
        finally:
            for node in found.nodes:
                node.end()
            database.dispose()
            app.close()
