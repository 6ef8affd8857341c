# SPDX-License-Identifier: Apache-2.0
"""Requests at a steady rate over kept connections, whatever the server does: an open loop.

A request's time counts from the moment it was due, not from the moment a thread was free for it.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

THREADS = 16  # 200 requests a second of up to 80 ms each


@dataclass(frozen=True)
class Request:
    """One POST of JSON."""

    path: str
    body: Any
    headers: Mapping[str, str]


@dataclass
class Answers:
    """What came back."""

    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


def fire(port: int, requests: Sequence[Request], rate: float) -> Answers:
    """Send all requests, `rate` a second, to a port of this host."""
    answers, lock = Answers(), threading.Lock()
    contents = [json.dumps(request.body).encode() for request in requests]
    waiting = iter(range(len(requests)))
    began = time.monotonic() + 0.2

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    return
                due = began + number / rate
                time.sleep(max(0.0, due - time.monotonic()))
                status = _post(connection, port, requests[number], contents[number])
                took = (time.monotonic() - due) * 1000
                with lock:
                    answers.milliseconds.append(took)
                    answers.statuses[status] += 1
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _post(connection: http.client.HTTPConnection, port: int, request: Request, content: bytes) -> int:
    headers = {"Host": f"localhost:{port}", "Content-Type": "application/json", **request.headers}
    connection.request("POST", request.path, content, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status
