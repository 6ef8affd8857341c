# SPDX-License-Identifier: Apache-2.0
"""`conferral up` whole: every real process on real ports, once, and what people see of it."""

from __future__ import annotations

import base64
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

import pytest

from conferral.cli import process_identity

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

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the same data directory, as from another shell."""
        own = {name: value for name, value in self.environ.items() if not name.endswith("_PORT")}
        return subprocess.run(
            self.command(*words),
            env=own,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
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


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Yield one running installation for all tests of this file."""
    folder = tmp_path_factory.mktemp("installation")
    ports = free_ports(4)
    names = ("HTTP", "STREAM", "METRICS", "FLOWER")
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONFERRAL_")}
    own["CONFERRAL_DATA_DIR"] = str(folder)
    own |= {f"CONFERRAL_{name}_PORT": str(port) for name, port in zip(names, ports, strict=True)}
    running = Installation(folder, ports, environ=own)
    running.start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def test_everything_is_ready_and_the_banner_tells_how_to_get_in(installation: Installation) -> None:
    """Address, login, key, Flower: a person needs nothing else."""
    text = (installation.folder / "banner").read_text()
    assert f"http://localhost:{installation.ports[0]}" in text
    assert re.search(r"Login +\S+@\S+ +password \S{8,}", text)
    assert re.search(r"Test key +conferral_test_\S{40,}", text)
    assert "Waiting" not in text
    states = {
        name: row["state"] for name, row in installation.status().items() if name not in {"migrate", "demo"}
    }
    assert set(states.values()) == {"ready"}
    assert set(states) >= {"redis", "web", "streams", "hp", "mail", "hooks", "chain", "lp", "beat", "flower"}


def test_each_port_serves_its_own(installation: Installation) -> None:
    """Metrics leave by a port of their own; Flower asks for its password and changes nothing."""
    web, streams, metrics, flower = installation.ports
    assert installation.get(web, "/healthz")[0] == 200
    assert installation.get(streams, "/healthz")[0] == 200
    assert "conferral_" in installation.get(metrics, "/metrics")[1]
    assert installation.get(web, "/metrics")[0] == 404
    assert installation.get(flower, "/workers")[0] == 401
    password = (installation.folder / "keys" / "flower.password").read_text().strip()
    login = {"Authorization": f"Basic {base64.b64encode(f'operator:{password}'.encode()).decode()}"}
    assert installation.get(flower, "/workers", **login)[0] == 200


def test_another_shell_finds_everything_without_configuration(installation: Installation) -> None:
    """`conferral doctor` in a second terminal names the Redis, the database and the processes."""
    done = installation.run("doctor", "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert [finding for finding in findings if finding["state"] == "bad"] == [], done.stdout
    assert any(finding["detail"] == "it never evicts" for finding in findings)
    assert done.returncode == 0
    assert installation.run("health").returncode == 0
    assert installation.run("health", "beat").returncode == 0
    assert installation.run("up").returncode == 8


def test_no_secret_stands_in_arguments_or_logs(installation: Installation) -> None:
    """Whoever may list processes or read logs learns no password."""
    folder = installation.folder
    secrets = [(folder / "keys" / name).read_text().strip() for name in ("redis.password", "flower.password")]
    secrets += json.loads((folder / "keys" / "demo.json").read_text())["password"].split()
    arguments = [
        Path(f"/proc/{row['pid']}/cmdline").read_bytes().decode()
        for row in installation.status().values()
        if row["pid"]
    ]
    assert len(arguments) == 10
    said = installation.log() + (folder / "err").read_text()
    assert [secret for secret in secrets if secret in said or any(secret in line for line in arguments)] == []
    open_to_others = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert [
        path for path in open_to_others if path.parent.name in {"keys", "run", "logs"} and _is_secret(path)
    ] == []


def test_a_killed_worker_comes_back(installation: Installation) -> None:
    """The supervisor notices at once and starts it again."""
    pid = int(str(installation.status()["mail"]["pid"]))
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + READY_SECONDS
    while installation.status()["mail"]["restarts"] != 1 or installation.status()["mail"]["state"] != "ready":
        assert time.monotonic() < deadline, installation.log()
        time.sleep(0.1)


def test_ctrl_c_ends_everything_and_a_new_start_shows_the_same_login(installation: Installation) -> None:
    """Exit status 0, no process left, no port taken; state survives."""
    before = re.findall(r"password (\S+)|(conferral_test_\S+)", (installation.folder / "banner").read_text())
    pids = [int(str(row["pid"])) for row in installation.status().values() if row["pid"]]
    assert installation.stop() == 0
    assert [pid for pid in pids if process_identity.start_time(pid)] == []
    rows = installation.status().values()
    assert {row["name"]: row["last_exit"] for row in rows if row["last_exit"] not in {0, None}} == {}
    assert not (installation.folder / "run" / "environment.json").exists()
    assert re.findall(r"password (\S+)|(conferral_test_\S+)", installation.start()) == before


def _is_secret(path: Path) -> bool:
    return path.suffix in {".key", ".password", ".json", ".conf"} and path.name != "supervisor.json"
