# SPDX-License-Identifier: Apache-2.0
"""A real installation: `conferral up` on free ports and a data directory of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

# The promise is 15 s on two idle cores; a machine that runs tests is not idle.
READY_SECONDS = 90.0
STOP_SECONDS = 45.0


@dataclass
class Installation:
    """A running `conferral up` and how to ask it."""

    folder: Path
    ports: list[int]
    process: subprocess.Popen[str] | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def command(self, *words: str) -> list[str]:
        """Return a command line of ours."""
        return [sys.executable, "-P", "-m", "conferral.cli.main", *words]

    def run(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another command on the same data directory, as from another shell."""
        own = {name: value for name, value in self.environ.items() if not name.endswith("_PORT")}
        return subprocess.run(
            self.command(*words),
            env=own,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def get(self, port: int, path: str, **headers: str) -> tuple[int, str]:
        """Ask over HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path, headers={"Host": f"localhost:{port}", **headers})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body

    def status(self) -> dict[str, dict[str, object]]:
        """Return the supervisor's status by process."""
        found = json.loads((self.folder / "run" / "supervisor.json").read_text())
        return {row["name"]: row for row in found["processes"]}

    def log(self) -> str:
        """Return what the processes said."""
        return "\n".join(path.read_text() for path in sorted((self.folder / "logs").glob("*.log")))

    def until_ready(self) -> str:
        """Wait for the banner and return it."""
        banner = self.folder / "banner"
        deadline = time.monotonic() + READY_SECONDS
        while "Ctrl-C" not in banner.read_text():
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)
        return banner.read_text()

    def start(self) -> str:
        """Start it and return the banner."""
        with (self.folder / "banner").open("w") as banner, (self.folder / "err").open("w") as errors:
            self.process = subprocess.Popen(
                self.command("up"), env=self.environ, cwd=self.folder, stdout=banner, stderr=errors, text=True
            )
        return self.until_ready()

    @property
    def api_key(self) -> str:
        """Return the test key that the banner showed."""
        found = re.search(r"conferral_test_\w+", (self.folder / "banner").read_text())
        assert found is not None
        return found.group()

    def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Call the API with the test key; return status, JSON and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Host": f"localhost:{self.ports[0]}", "Authorization": f"Bearer {self.api_key}", **named}
        content = None if body is None else json.dumps(body)
        if content is not None:
            sent["Content-Type"] = "application/json"
        connection.request(method, path, body=content, headers=sent)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        return answer.status, json.loads(raw) if raw else None, dict(answer.getheaders())

    def redis(self) -> redis.Redis:
        """Return a client of the running Redis."""
        found = json.loads((self.folder / "run" / "environment.json").read_text())
        return redis.Redis.from_url(found["CONFERRAL_REDIS_URL"])

    def background(self, *words: str) -> subprocess.Popen[str]:
        """Start another command beside it."""
        own = {name: value for name, value in self.environ.items() if not name.endswith("_PORT")}
        return subprocess.Popen(
            self.command(*words),
            env=own,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def stop(self) -> int:
        """Press Ctrl-C and return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@contextlib.contextmanager
def installed(folder: Path, **variables: str) -> Iterator[Installation]:
    """Yield a running installation; it is stopped with Ctrl-C at the end."""
    ports = free_ports(4)
    names = ("HTTP", "STREAM", "METRICS", "FLOWER")
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONFERRAL_")}
    own["CONFERRAL_DATA_DIR"] = str(folder)
    own |= {f"CONFERRAL_{name}_PORT": str(port) for name, port in zip(names, ports, strict=True)}
    running = Installation(folder, ports, environ=own | variables)
    running.start()
    try:
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()
