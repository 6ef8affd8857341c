# SPDX-License-Identifier: Apache-2.0
"""What a POST costs when it does nothing but insert one row: the measure of our own POST.

The same gunicorn, workers, threads, driver and durability; no key, no validation, no promise.
`gunicorn support.bench_flask:create_app()` with BENCH_DATABASE_URL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flask import Flask, Response, jsonify, request
from sqlalchemy import JSON, Column, Integer, MetaData, Table, insert

import support
from conferral.reliable.routing import Routing
from conferral.store.engine import Database
from support.installation import free_ports

VARIABLE = "BENCH_DATABASE_URL"
READY_SECONDS = 30.0
_T = TypeVar("_T")

metadata = MetaData()
asked = Table(
    "bench_asked", metadata, Column("id", Integer, primary_key=True), Column("body", JSON, nullable=False)
)


def create_app() -> Flask:
    """Return the application: POST / inserts its body and answers 202."""
    app = Flask(__name__)
    database = Database(os.environ[VARIABLE], routing=Routing(routes=(), pools=()))

    @app.post("/")
    def keep() -> tuple[Response, int]:
        with database.transaction() as session:
            session.execute(insert(asked).values(body=request.get_json()))
        return jsonify(status="queued"), 202

    @app.get("/")
    def ready() -> str:
        return "ready"

    return app


def bare_insert(kind: str, url: str, folder: Path, use: Callable[[int], _T]) -> _T:
    """Run the server beside the product's (SQLite: on a file of its own), use its port, end it."""
    folder.mkdir()
    own = f"sqlite:///{folder}/bare.db" if kind == "sqlite" else url
    database = Database(own, routing=Routing(routes=(), pools=()))
    metadata.create_all(database.engine)
    (port,) = free_ports(1)
    process = _serve(own, port, folder)
    try:
        _until_ready(port)
        return use(port)
    finally:
        process.terminate()
        process.wait(20)
        metadata.drop_all(database.engine)
        database.dispose()


def _serve(url: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    tests = str(Path(next(iter(support.__path__))).parent)
    workers = str(max(2, os.cpu_count() or 1))
    words = ["-b", f"127.0.0.1:{port}", "-w", workers, "-k", "gthread", "--threads", "8", "--keep-alive", "5"]
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *words, "--no-control-socket",
             "support.bench_flask:create_app()"],
            env={**os.environ, VARIABLE: url, "PYTHONPATH": tests}, stdout=log, stderr=log,
        )  # fmt: skip


def _until_ready(port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2):
                return
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "the bare server did not start"
            time.sleep(0.1)
