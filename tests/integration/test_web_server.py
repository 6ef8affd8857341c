# SPDX-License-Identifier: Apache-2.0
"""The real server, over real HTTP, on a data directory as an installation has it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conferral import wiring
from conferral.services import tenancy
from conferral.settings import Settings, prepare_data_dir
from conferral.store import migrate
from support.web import body, free_port, gunicorn

AWAY = {"CONFERRAL_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Make a data directory with the demo organisation; return it and a test key."""
    folder = tmp_path_factory.mktemp("server")
    settings = Settings.from_env({**os.environ, "CONFERRAL_DATA_DIR": str(folder), **AWAY}, role="web")
    prepare_data_dir(settings)
    rt = wiring.build(settings)
    migrate.upgrade(rt.database.engine)
    demo = tenancy.ensure_demo(rt)
    rt.database.dispose()
    assert demo.api_key is not None
    return folder, demo.api_key


@pytest.fixture(scope="module")
def port(key: tuple[Path, str]) -> Iterator[int]:
    """Run the server; yield its port."""
    with gunicorn(key[0], **AWAY) as found:
        yield found


def ask(port: int, path: str, key: str, document: Any = None) -> tuple[int, dict[str, str], bytes]:
    """Ask over HTTP; return status, headers and body, whatever the status."""
    data = json.dumps(document).encode() if document is not None else None
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://localhost:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - ours
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_a_request_is_accepted_while_redis_is_away(key: tuple[Path, str], port: int) -> None:
    """202, and the status is there at once."""
    status, headers, content = ask(port, "/credentials/issue", key[1], body())
    assert status == 202
    assert json.loads(content)["status"] == "queued"
    status, _, content = ask(port, headers["Location"], key[1])
    assert (status, json.loads(content)["state"]) == (200, "PENDING")


def test_the_log_names_nobody(key: tuple[Path, str], port: int) -> None:
    """One JSON line a request, with its id; no address, no name, no key."""
    _, headers, _ = ask(port, "/credentials/issue", key[1], body("somebody.special@example.com"))
    lines = key[0].joinpath("web.log").read_text().splitlines()
    mine = [json.loads(line) for line in lines if headers["Request-Id"] in line]
    (requested,) = (line for line in mine if line["event"] == "http_request")
    assert (requested["route"], requested["status"]) == ("/credentials/issue", 202)
    text = "\n".join(lines)
    assert "somebody.special" not in text
    assert "Lovelace" not in text
    assert key[1] not in text


def test_pages_and_files_are_served(key: tuple[Path, str], port: int) -> None:
    """Templates and static files are where the package looks for them."""
    for path, kind in (
        ("/console/login", "text/html"),
        ("/", "text/html"),
        ("/static/conferral.css", "text/css"),
        ("/openapi.json", "application/json"),
    ):
        status, headers, _ = ask(port, path, key[1])
        assert status == 200, path
        assert headers["Content-Type"].startswith(kind)


def test_the_streams_process_serves_metrics_on_their_port(key: tuple[Path, str]) -> None:
    """And on that port nothing of the pages."""
    metrics = free_port()
    with gunicorn(key[0], "streams", CONFERRAL_METRICS_PORT=str(metrics), **AWAY) as streams:
        assert ask(streams, "/metrics", key[1])[0] == 404
        status, _, content = ask(metrics, "/metrics", key[1])
        assert status == 200
        assert b"conferral_build_info" in content
        assert ask(metrics, "/v1/credentials", key[1])[0] == 404
        assert ask(metrics, "/console/login", key[1])[0] == 404
