# SPDX-License-Identifier: Apache-2.0
"""`conferral up` whole: every real process on real ports, once, and what people see of it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conferral.cli import process_identity
from support.installation import READY_SECONDS, Installation, installed


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Yield one running installation for all tests of this file."""
    with installed(tmp_path_factory.mktemp("installation")) as running:
        yield running


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
