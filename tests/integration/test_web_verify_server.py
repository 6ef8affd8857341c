# SPDX-License-Identifier: Apache-2.0
"""`/verify` on the real server: a gigabyte, and answers that take the same time for unknown and private."""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.product import product_on
from support.web import ISSUE, Web, body, gunicorn, web_of

UPLOAD_BYTES = 1 << 30
MOST_SECONDS = 20.0
MOST_GROWTH_BYTES = 50 << 20
LOOKS = 2_000
JSON = {"Accept": "application/json"}


def say(text: str) -> None:
    """Print a figure; `pytest -s` shows it."""
    sys.stdout.write(f"\n{text}\n")


def peak_bytes(port: int) -> int:
    """Return the largest memory that any process listening on a port, or its child, ever had."""
    wanted = f":{port:04X} "
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    inodes = {line.split()[9] for line in lines if wanted in line and line.split()[3] == "0A"}
    peaks = [0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = {str(link.readlink()) for link in (process / "fd").iterdir()}
            status = (process / "status").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        if links & {f"socket:[{inode}]" for inode in inodes}:
            peaks += [1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a migrated data directory."""
    with product_on("sqlite", tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1"):
        pass
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_gigabyte_is_refused_at_once_and_costs_no_memory(data: Path, kind: str) -> None:
    """413 long before the last byte; the server does not grow and answers the next one."""
    with gunicorn(data, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as port:
        _post(port, b"POST /verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")  # fmt: skip
        before = peak_bytes(port)
        began = time.monotonic()
        sent, answer = _upload(port, kind)
        seconds = time.monotonic() - began
        growth = peak_bytes(port) - before
        after = _post(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"body_too_large" in answer
    assert b" 200 " in after.split(b"\r\n")[0]
    say(f"{kind}: 413 after {seconds:.2f} s and {sent >> 20} MiB; the server grew by {growth >> 20} MiB")
    assert before > 0
    assert seconds < MOST_SECONDS
    assert growth < MOST_GROWTH_BYTES


def _upload(port: int, kind: str) -> tuple[int, bytes]:
    """Send until the server answers; return the bytes that were sent and its answer."""
    head = b"POST /verify HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n"
    head += (
        b"Content-Length: %d\r\n\r\n" % UPLOAD_BYTES
        if kind == "length"
        else b"Transfer-Encoding: chunked\r\n\r\n"
    )
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%PDF-1.7\n'
    block = b"x" * (1 << 20)
    with socket.create_connection(("127.0.0.1", port), timeout=MOST_SECONDS) as connection:
        connection.sendall(head + (form if kind == "length" else b"%x\r\n%b\r\n" % (len(form), form)))
        sent = 0
        try:
            while sent < UPLOAD_BYTES:
                connection.settimeout(0.001)
                try:
                    first = connection.recv(65536)
                    return sent, first + _rest(connection)
                except TimeoutError:
                    pass
                connection.settimeout(MOST_SECONDS)
                connection.sendall(block if kind == "length" else b"%x\r\n%b\r\n" % (len(block), block))
                sent += len(block)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return sent, _rest(connection)


def _rest(connection: socket.socket) -> bytes:
    connection.settimeout(MOST_SECONDS)
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def _post(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=MOST_SECONDS) as connection:
        connection.sendall(request)
        return _rest(connection)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Yield the application in this process."""
    with product_on("sqlite", tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


def test_unknown_and_private_take_the_same_time(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 looks at the page and 2,000 uploads, in turn: the difference is below the noise of one look."""
    monkeypatch.setattr("conferral.web.public.answers.limit", lambda: None)
    made = web.post(ISSUE, body()).json
    waiting = web.product.credential(made["credential_id"])
    client = web.client
    unsigned = {"id": "", "issuer": "did:web:elsewhere.example", "proof": {}}

    def look(token: str, vc_id: str) -> tuple[float, float]:
        document = json.dumps({**unsigned, "id": vc_id})
        began = time.perf_counter()
        page: Any = client.get(f"/c/{token}")
        between = time.perf_counter()
        told = client.post("/verify", data=document, content_type="application/json", headers=JSON)
        ended = time.perf_counter()
        assert (page.status_code, told.json["verdict"]) == (404, "UNKNOWN")
        return between - began, ended - between

    pairs = {"unknown": ("2" * 22, waiting.vc_id[:-1] + "x"), "private": (waiting.token, waiting.vc_id)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in pairs}
    for _ in range(LOOKS // 2):
        for name, asked in pairs.items():
            times[name].append(look(*asked))
    for which, door in enumerate(("page", "upload")):
        unknown, private = ([one[which] for one in times[name]] for name in ("unknown", "private"))
        middle = [statistics.median(one) * 1000 for one in (unknown, private)]
        noise = statistics.quantiles([1000 * one for one in unknown], n=4)
        say(f"{door}: unknown {middle[0]:.3f} ms, private {middle[1]:.3f} ms, quartiles {noise}")
        assert abs(middle[0] - middle[1]) < max(noise[2] - noise[0], 0.05 * middle[0])
