# SPDX-License-Identifier: Apache-2.0
"""Ports are asked for before anything starts; a taken one is an error that names its holder.

Retrying on a busy port hides the second copy of a program; so nothing here waits or moves.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
# A longer command line helps nobody to recognise a program.
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Wanted:
    """A port that a process is going to listen on, and the setting that would change it."""

    purpose: str
    host: str
    port: int
    variable: str


def taken(wanted: Iterable[Wanted]) -> Iterator[str]:
    """Yield one sentence for each port that cannot be had."""
    for item in wanted:
        reason = _refusal(item.host, item.port)
        if reason is not None:
            holder = holder_of(item.port) if "in use" in reason else None
            who = f"is taken by {holder}" if holder else f"cannot be used: {reason}"
            yield (
                f"port {item.port} on {item.host} ({item.purpose}) {who}; "
                f"end that program or choose another port with {item.variable}"
            )


def is_open(host: str, port: int, timeout_seconds: float = 0.5) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout_seconds):
            return True
    except OSError:
        return False


def holder_of(port: int) -> str | None:
    """Return program and pid that listen on a TCP port, as far as /proc shows them to this user."""
    inodes = set(_listening_inodes(port))
    if not inodes:
        return None
    for folder in Path("/proc").glob("[0-9]*/fd"):
        if inodes & _sockets(folder):
            pid = folder.parent.name
            return f"{_command(folder.parent)} (pid {pid})"
    return None


def _refusal(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    yield words[9]


def _sockets(folder: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            # A descriptor may be closed while we look.
            with contextlib.suppress(OSError):
                target = str(path.readlink())
                if target.startswith("socket:["):
                    found.add(target[len("socket:[") : -1])
    return found


def _command(process: Path) -> str:
    try:
        words = process.joinpath("cmdline").read_bytes().split(b"\0")
        text = b" ".join(words).decode(errors="replace").strip()
    except OSError:
        text = ""
    return (text or "another program")[:_SHOWN_CHARACTERS]
