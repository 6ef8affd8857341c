# SPDX-License-Identifier: Apache-2.0
"""The processes that make an installation: which program, which arguments, which environment.

`conferral api|streams|worker|beat|flower` become such a program; `conferral up` starts all of them. So a
process is the same thing under our supervisor, under systemd and in a container. No secret stands in an
argument: arguments can be read by everybody on the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from conferral.settings import Settings, SettingsError, key_files, prepare_data_dir

FLOWER_USER = "operator"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
MEMORY = Path("/dev/shm")  # noqa: S108 -- a folder of our own in it, looked at before it is used


@dataclass(frozen=True)
class Pool:
    """Worker processes of one kind: which queue they take from and how they work."""

    name: str
    queue: str
    kind: Literal["prefork", "threads"]
    slots: str
    hard_limit_seconds: int | None = None


# Prefork where CPU is spent, threads where waiting is. The names are the nodes' (`hp@host`) and roles.
POOLS = (
    Pool("hp", "high_priority", "prefork", "slots_high_priority", hard_limit_seconds=25),
    Pool("mail", "default", "threads", "slots_default"),
    Pool("hooks", "webhooks", "threads", "slots_webhooks"),
    Pool("chain", "anchoring", "threads", "slots_anchoring"),
    Pool("lp", "low_priority", "prefork", "slots_low_priority", hard_limit_seconds=600),
)
# Said once by `conferral up`; five workers need not say it in eight lines each.
ROOT_WARNING = "ignore:You're running the worker with superuser privileges"
# `getaddrinfo` knows no deadline; this bounds a resolver that does not answer.
RESOLVER = "timeout:2 attempts:1"


@dataclass(frozen=True)
class Program:
    """What to execute: arguments (the first one is the program) and the whole environment."""

    command: tuple[str, ...]
    environ: Mapping[str, str]

    def become(self) -> NoReturn:
        """Replace this process by the program."""
        os.execve(self.command[0], self.command, dict(self.environ))  # noqa: S606 -- built by us


def web(settings: Settings, role: Literal["web", "streams"]) -> Program:
    """Pages and API, or live streams and metrics."""
    command = _python("gunicorn", "--config", "python:conferral.web.gunicorn_config")
    return Program(command, environment(settings, role))


def worker(settings: Settings, pool: Pool) -> Program:
    """One pool of Celery workers."""
    _require_broker(settings)
    own = {"RES_OPTIONS": RESOLVER, "PYTHONWARNINGS": ROOT_WARNING}
    return Program(_python("conferral.cli.node", "worker", pool.name), environment(settings, pool.name) | own)


def beat(settings: Settings) -> Program:
    """The clock of the schedules; any number may run, one fires."""
    _require_broker(settings)
    return Program(_python("conferral.cli.node", "beat"), environment(settings, "beat"))


def flower(settings: Settings) -> Program:
    """Flower on loopback, read-only, behind a generated password."""
    _require_broker(settings)
    # Flower would execute a `flowerconfig.py` of whatever folder it is started in.
    configuration = settings.run_dir / "flowerconfig.py"
    configuration.write_text("# Flower is configured by its arguments and FLOWER_ variables.\n")
    arguments = (
        *("flower", "--address=127.0.0.1", f"--port={settings.flower_port}", "--read-only=True"),
        # Its warnings are about workers that do not answer within a second, which is no news.
        *("--persistent=False", f"--conf={configuration}", "--logging=error"),
    )
    own = {
        # Flower needs our broker, not our tasks: it starts in half the time and memory.
        "CELERY_BROKER_URL": settings.broker_url,
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{flower_password(settings)}",
        "FLOWER_COOKIE_SECRET": secrets.token_urlsafe(32),
    }
    return Program(_python("celery", "--quiet", *arguments), environment(settings, "flower") | own)


def subcommand(settings: Settings, *words: str) -> Program:
    """One of our own commands, such as `migrate`."""
    return Program(_python("conferral.cli.main", *words), environment(settings, "cli"))


def pool_named(name: str) -> Pool:
    """Return a pool by its name.

    Raises:
        SettingsError: there is no such pool.
    """
    for pool in POOLS:
        if pool.name == name:
            return pool
    raise SettingsError([f"there is no pool {name!r}; there are: {', '.join(pool.name for pool in POOLS)}"])


def flower_password(settings: Settings) -> str:
    """Return Flower's password, made at first use; `<data directory>/keys/flower.password`."""
    return key_files.read_or_create_password(settings.keys_dir / "flower.password")


def alive_file(settings: Settings, name: str) -> Path:
    """Return the file that a worker's consumer, or Beat, touches every few seconds."""
    return settings.alive_directory / f"{name}@{socket.gethostname()}.alive"


def metrics_folder(settings: Settings) -> Path:
    """Return the folder of this host's counters, made if it is missing; in memory where there is some.

    Counters are mapped files: whoever touches a new page of one on a full disk is killed (SIGBUS), not told.
    """
    place = hashlib.sha256(os.fsencode(settings.data_dir.resolve())).hexdigest()[:16]
    folder = MEMORY / f"conferral-{os.geteuid()}-{place}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid():  # anybody may make a name there
            return folder
    folder = settings.run_dir / "metrics"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def forget_counters(settings: Settings) -> None:
    """Delete the counters of processes that have ended; counters may start again, gauges are rows."""
    folder = metrics_folder(settings)
    for file in folder.glob("*.db"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody's processes may go on without us
        folder.rmdir()


def environment(settings: Settings, role: str) -> dict[str, str]:
    """Return the environment of a process: ours, what was resolved, and its role."""
    resolved = {
        "CONFERRAL_ROLE": role,
        "CONFERRAL_DATA_DIR": str(settings.data_dir),
        "CONFERRAL_ALIVE_DIRECTORY": str(settings.alive_directory),
        "CONFERRAL_HTTP_HOST": settings.http_host,
        "CONFERRAL_HTTP_PORT": str(settings.http_port),
        "CONFERRAL_STREAM_PORT": str(settings.stream_port),
        "CONFERRAL_METRICS_PORT": str(settings.metrics_port),
        "CONFERRAL_FLOWER_PORT": str(settings.flower_port),
        "CONFERRAL_PUBLIC_URL": settings.public_url,
        "CONFERRAL_STREAM_URL": settings.stream_url,
        "CONFERRAL_REDIS_URL": settings.redis_url,
        "CONFERRAL_BROKER_URL": settings.broker_url,
        "CONFERRAL_RESULT_URL": settings.result_url,
        # Counters of all processes of this host come together here and are served on the metrics port.
        METRICS_VARIABLE: str(metrics_folder(settings)),
        # Lines must leave a process when they are said, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **resolved}


def prepared(role: str) -> Settings:
    """Read the settings of a process that is going to run, and make its folders."""
    settings = Settings.from_env(os.environ, role=role)
    prepare_data_dir(settings)
    return settings


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: a file in the folder where we are started must not take the place of a library.
    return (sys.executable, "-P", "-m", module, *arguments)


def _require_broker(settings: Settings) -> None:
    if not settings.broker_url:
        where = f"CONFERRAL_DATA_DIR={str(settings.data_dir)!r}"
        raise SettingsError([f"CONFERRAL_REDIS_URL is not set and no `conferral up` runs on {where}"])
