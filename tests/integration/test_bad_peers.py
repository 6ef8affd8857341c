# SPDX-License-Identifier: Apache-2.0
"""A Redis or a PostgreSQL that is wrong, old or closed: which setting, what is wrong, what to do."""

from __future__ import annotations

import contextlib
import os
import socketserver
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from conferral.cli.findings import BAD, WARNING, Finding
from conferral.cli.redis_checks import findings
from support.postgres import postgres_server
from support.redis import redis_process

UNAVAILABLE, USAGE = 8, 2
SECONDS = 120
SECRET = "hunter2-hunter2"


def conferral(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a data directory; it may neither trace nor show a password."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONFERRAL_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "conferral.cli.main", *words],
        env={**own, "CONFERRAL_DATA_DIR": str(folder), "CONFERRAL_HTTP_PORT": "18650", **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert SECRET not in done.stderr + done.stdout
    return done


class OldRedis(socketserver.StreamRequestHandler):
    """Answers as a server of 2015 would: enough of the protocol to be asked for its version."""

    def handle(self) -> None:
        """Answer until the client goes."""
        while line := self.rfile.readline():
            words = [self._word() for _ in range(int(line[1:]))]
            if words[0].upper() == b"INFO":
                text = b"# Server\r\nredis_version:3.0.6\r\nmaxmemory:0\r\nused_memory:1\r\n"
                self.wfile.write(b"$%d\r\n%s\r\n" % (len(text), text))
            elif words[0].upper() == b"HELLO":
                self.wfile.write(b"-ERR unknown command 'HELLO'\r\n")
            elif words[0].upper() == b"CONFIG":
                value = b"noeviction" if b"policy" in words[2] else b"yes"
                self.wfile.write(
                    b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(words[2]), words[2], len(value), value)
                )
            else:
                self.wfile.write(b"+OK\r\n")

    def _word(self) -> bytes:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2]


@contextlib.contextmanager
def old_redis() -> Iterator[str]:
    """Yield the address of an old server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldRedis) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"redis://:{SECRET}@127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def of(state: str, found: list[Finding]) -> str:
    """Return what was found of one state, with the cures."""
    return "\n".join(f"{one.detail} -> {one.fix}" for one in found if one.state == state)


def test_an_old_redis_is_refused_at_the_start_and_named_by_the_doctor(tmp_path: Path) -> None:
    """Its version, the oldest that works, the setting; nothing was started."""
    with old_redis() as url:
        done = conferral(tmp_path, "up", CONFERRAL_REDIS_URL=url)
        assert done.returncode == UNAVAILABLE
        assert "version 3.0.6 is too old" in done.stderr
        assert "6.2 or newer in CONFERRAL_REDIS_URL" in done.stderr
        assert not (tmp_path / "conferral.db").exists()
        seen = conferral(tmp_path, "doctor", CONFERRAL_REDIS_URL=url)
        assert (seen.returncode, "version 3.0.6 is too old" in seen.stdout) == (1, True)


def test_a_redis_that_evicts_or_forgets_is_named_with_the_command_that_mends_it() -> None:
    """Eviction is an error, no file and no password are warnings."""
    with redis_process() as server, redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
        found = list(findings(server.url))
        assert "allkeys-lru drops whole queues" in of(BAD, found)
        assert "CONFIG SET maxmemory-policy noeviction" in of(BAD, found)
        assert "CONFIG SET appendonly yes" in of(WARNING, found)
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")
        assert of(BAD, list(findings(server.url))) == ""
        client.config_set("requirepass", "")
        open_url = f"redis://127.0.0.1:{server.port}"
        assert "set requirepass" in of(WARNING, list(findings(open_url)))


def test_a_wrong_redis_password_is_refused_at_the_start(tmp_path: Path) -> None:
    """Workers that could never log in are not started."""
    with redis_process() as server:
        url = f"redis://:{SECRET}@127.0.0.1:{server.port}"
        done = conferral(tmp_path, "up", CONFERRAL_REDIS_URL=url)
        assert done.returncode == UNAVAILABLE
        assert "refuses our password" in done.stderr
        assert "CONFERRAL_REDIS_URL" in done.stderr


@pytest.mark.parametrize(
    ("place", "says"),
    [("127.0.0.1:1", "does not answer"), ("nowhere.invalid", "the host of the database is not known")],
)
def test_a_postgresql_that_cannot_be_reached_names_its_setting(tmp_path: Path, place: str, says: str) -> None:
    """One sentence, exit code 8, the doctor says the same."""
    url = f"postgresql://conferral:{SECRET}@{place}/conferral"
    done = conferral(tmp_path, "org", "list", CONFERRAL_DATABASE_URL=url)
    assert done.returncode == UNAVAILABLE
    assert says in done.stderr
    assert "CONFERRAL_DATABASE_URL" in done.stderr
    assert says in conferral(tmp_path, "doctor", CONFERRAL_DATABASE_URL=url).stdout


def test_a_postgresql_without_our_database_or_tables_says_which(tmp_path: Path) -> None:
    """A database that is not there, and one that is empty, are two different cures."""
    with postgres_server() as url:
        missing = urlsplit(url)._replace(path="/nothing_here").geturl()
        done = conferral(tmp_path, "org", "list", CONFERRAL_DATABASE_URL=missing)
        assert (done.returncode, "no such database" in done.stderr) == (UNAVAILABLE, True)
        done = conferral(tmp_path, "org", "list", CONFERRAL_DATABASE_URL=url)
        assert (done.returncode, "conferral migrate" in done.stderr) == (UNAVAILABLE, True)


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """Migrating refuses, the doctor says why, and nothing in it was changed."""
    assert conferral(tmp_path, "migrate").returncode == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "conferral.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    done = conferral(tmp_path, "migrate")
    assert done.returncode == UNAVAILABLE
    assert "later version" in done.stderr
    assert "later version" in conferral(tmp_path, "doctor").stdout
    with contextlib.closing(sqlite3.connect(tmp_path / "conferral.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    """A backup that was unpacked wrongly, a file that was cut off."""
    (tmp_path / "conferral.db").write_bytes(b"this is not a database at all, and long enough to be one " * 9)
    done = conferral(tmp_path, "org", "list")
    assert done.returncode == UNAVAILABLE
    assert "no SQLite database" in done.stderr
