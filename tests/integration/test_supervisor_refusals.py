# SPDX-License-Identifier: Apache-2.0
"""What `conferral up` and its sisters refuse before anything starts: real processes, real exit codes."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conferral.settings import Settings, prepare_data_dir

UNAVAILABLE, USAGE = 8, 2
SECONDS = 60


def conferral(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a data directory of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONFERRAL_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "conferral.cli.main", *words],
        env={**own, "CONFERRAL_DATA_DIR": str(folder), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_wrong_settings_are_all_told_and_nothing_starts(tmp_path: Path) -> None:
    """Exit code 2, one line each, no traceback, no file."""
    done = conferral(tmp_path, "up", CONFERRAL_HTTP_PORT="0", CONFERRAL_ENV="prod", CONFERRAL_SMPT_HOST="x")
    assert done.returncode == USAGE
    assert len(done.stderr.splitlines()) == 3
    assert "did you mean CONFERRAL_SMTP_HOST?" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_refused_with_its_holder(tmp_path: Path) -> None:
    """Nothing starts beside another program; the sentence says which one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = conferral(tmp_path, "up", "--port", str(port), CONFERRAL_STREAM_PORT="18431")
    assert done.returncode == UNAVAILABLE
    assert f"port {port} on 127.0.0.1 (pages and API) is taken by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr


def test_a_second_supervisor_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """Two would start two of everything on one database."""
    prepare_data_dir(Settings.from_env({"CONFERRAL_DATA_DIR": str(tmp_path)}))
    with (tmp_path / "run" / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = conferral(tmp_path, "up")
    assert done.returncode == UNAVAILABLE
    assert "another `conferral up` runs" in done.stderr


@pytest.mark.parametrize("words", [("worker", "hp"), ("beat",), ("flower",)])
def test_a_process_alone_needs_a_broker(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Celery's own default would be somebody else's broker."""
    done = conferral(tmp_path, *words)
    assert done.returncode == USAGE
    assert "CONFERRAL_REDIS_URL is not set" in done.stderr


def test_an_unknown_pool_or_command_is_wrong_usage(tmp_path: Path) -> None:
    """The message names what there is."""
    assert conferral(tmp_path, "worker", "hq").returncode == USAGE
    assert "'hp', 'mail', 'hooks', 'chain', 'lp'" in conferral(tmp_path, "worker", "hq").stderr
    assert conferral(tmp_path, "upp").returncode == USAGE


def test_the_help_of_all_commands_imports_none_of_them(tmp_path: Path) -> None:
    """A broken command must not take the others with it."""
    code = (
        "import sys; from conferral.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith(('celery', 'sqlalchemy', 'flask', 'redis'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.endswith("\n[]\n")
    assert "Run everything here under one supervisor." in done.stdout


def test_health_tells_a_silent_worker(tmp_path: Path) -> None:
    """An orchestrator restarts a worker whose consumer has stopped giving signs of life."""
    assert conferral(tmp_path, "health").returncode == 1
    (tmp_path / "run").mkdir()
    alive, silent = tmp_path / "run" / "hp@host.alive", tmp_path / "run" / "mail@host.alive"
    alive.touch()
    silent.touch()
    assert conferral(tmp_path, "health").returncode == 0
    os.utime(silent, (1, 1))
    assert conferral(tmp_path, "health").returncode == 1
    assert conferral(tmp_path, "health", "hp").returncode == 0
    assert conferral(tmp_path, "health", "mail@host").returncode == 1
    assert conferral(tmp_path, "health", "--nonsense").returncode == USAGE


def test_health_imports_nothing_heavy(tmp_path: Path) -> None:
    """It runs every few seconds on every host."""
    code = (
        "import sys; sys.argv[1:] = ['health']\n"
        "from conferral.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('click', 'celery', 'sqlalchemy', 'redis') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CONFERRAL_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("\n[]\n")
