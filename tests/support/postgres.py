# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL for tests: named by CONFERRAL_TEST_POSTGRES_URL, or a server of our own.

Our own lives in a temporary folder, listens on a loopback port, never runs as root, and does not wait
for the disk: tests compare behaviour, not durability.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from support import require

VARIABLE = "CONFERRAL_TEST_POSTGRES_URL"
READY_SECONDS = 60.0
# Enough for ten processes with pools of their own beside xdist workers.
_CONNECTIONS = 300
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of an empty database, `postgresql://…`, that is gone afterwards."""
    named = os.environ.get(VARIABLE)
    if named:
        with _database(named) as url:
            yield url
        return
    with postgres_process() as server, _database(server.url) as database:
        yield database


@contextlib.contextmanager
def _database(server: str) -> Iterator[str]:
    """Create a database of its own on a server, so that tests beside each other do not meet."""
    import psycopg
    from psycopg import sql

    name = f"conferral_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )


@dataclass
class PostgresProcess:
    """A server of our own; `crash` and `start` keep its port and its data."""

    folder: Path
    port: int
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"postgresql://conferral@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        _wait(self.url, self.process, self.folder / "log")

    def crash(self) -> None:
        """End it at once, with every connection; the next start recovers what was committed."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it as an operator would, not waiting for clients."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@contextlib.contextmanager
def postgres_process() -> Iterator[PostgresProcess]:
    """Yield a running server of our own that can be crashed and started again."""
    programs = _programs()
    # /tmp, because the path of a unix socket may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="conferral-pg-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        as_user = _unprivileged(folder)
        data = str(folder / "data")
        initialise = [str(programs / "initdb"), "-D", data, "-U", "conferral", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*as_user, *initialise, "--no-sync", "--locale=C"],
            capture_output=True,
            text=True,
            cwd=name,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        port = _free_port()
        options = [
            "listen_addresses=127.0.0.1",
            f"port={port}",
            f"unix_socket_directories={folder}",
            f"max_connections={_CONNECTIONS}",
            *_FAST,
        ]
        told = [part for item in options for part in ("-c", item)]
        server = PostgresProcess(folder, port, [*as_user, str(programs / "postgres"), "-D", data, *told])
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """Return the folder of initdb and postgres; Debian keeps them off PATH."""
    on_path = shutil.which("initdb")
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    candidates = [*reversed(versions), *([Path(on_path).resolve().parent] if on_path else [])]
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    require.missing("no PostgreSQL server is here", f"apt-get install postgresql, or export {VARIABLE}=<url>")
    raise AssertionError


def _unprivileged(folder: Path) -> Sequence[str]:
    """Return what to put before a command so that it does not run as root, and give that user the folder."""
    if os.geteuid() != 0:
        return ()
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = users.get("postgres") or users["nobody"]
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    setpriv = require.program("setpriv", "apt-get install util-linux")
    return (setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--")


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"PostgreSQL did not start:\n{log.read_text(errors='replace')}"
                ) from None
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
