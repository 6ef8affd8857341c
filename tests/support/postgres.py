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
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
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
    with _own_server() as url, _database(url) as database:
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


@contextlib.contextmanager
def _own_server() -> Iterator[str]:
    programs = _programs()
    # /tmp, because the path of a unix socket may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="conferral-pg-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        as_user = _unprivileged(folder)
        data = folder / "data"
        initialise = [
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "conferral",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
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
        command = [
            str(programs / "postgres"),
            "-D",
            str(data),
            *(part for item in options for part in ("-c", item)),
        ]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [*as_user, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=name
            )
        try:
            url = f"postgresql://conferral@127.0.0.1:{port}/postgres"
            _wait(url, server, folder / "log")
            yield url
        finally:
            _stop(server)


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


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
        server.send_signal(2)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)
