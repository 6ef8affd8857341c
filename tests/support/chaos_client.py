# SPDX-License-Identifier: Apache-2.0
"""An honest client of the API: parallel requests, each repeated with its Idempotency-Key until answered.

It counts every answer, so that a test can say that none was a 500, and remembers every 202.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ACCEPTED = 202
# Answers after which a client may, and should, ask again with the same key.
AGAIN = frozenset({409, 429, 502, 503, 507})
MOST_ROWS = 10_000


@dataclass(frozen=True)
class Accepted:
    """A promise that the API made: a 202."""

    credential_id: str
    task_id: str
    key: str
    began: float
    at: float
    tries: int


@dataclass(frozen=True)
class AcceptedBatch:
    """A batch that was taken; its credentials are known when it was expanded."""

    batch_id: str
    rows: int
    at: float


@dataclass
class Client:
    """Calls one address with API keys in turn (a key has 600 writes a minute)."""

    port: Callable[[], int]
    keys: list[str]
    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    batches: list[AcceptedBatch] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, timeout: float = 30.0
    ) -> tuple[int, Any, dict[str, str]]:
        """Ask once; return status (0: no answer), JSON and headers."""
        began = time.monotonic()
        headers = {
            "Host": f"localhost:{self.port()}",
            "Authorization": f"Bearer {self.keys[hash(key) % len(self.keys)]}",
            **({"Idempotency-Key": key} if key else {}),
            **({"Content-Type": "application/json"} if body is not None else {}),
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._count(type(error).__name__, began)
            return 0, None, {}
        finally:
            connection.close()
        self._count(str(answer.status), began)
        return answer.status, _json(raw), dict(answer.getheaders())

    def until_answered(
        self, path: str, body: Any, *, key: str, patience: float = 90.0
    ) -> tuple[int, Any, int]:
        """POST with one key until the answer is final; return status, JSON and the number of tries."""
        deadline = time.monotonic() + patience
        tries = 0
        while True:
            tries += 1
            status, found, headers = self.call("POST", path, body, key=key)
            if status not in AGAIN and 0 < status < 500:
                return status, found, tries
            assert time.monotonic() < deadline, f"no answer within {patience:g} s; last: {status} {found}"
            time.sleep(min(float(headers.get("Retry-After", 0.2)), 2.0))

    def issue(
        self, count: int, *, threads: int = 8, pause: float = 0.0, patience: float = 90.0, **fields: Any
    ) -> list[Accepted]:
        """Ask for that many credentials in parallel; return the 202s in order.

        Args:
            count: how many credentials.
            threads: how many ask at once.
            pause: seconds that each waits between two requests.
            patience: how long one request may go unanswered.
            fields: members of the body that replace the usual ones; `email` and `name` of the recipient.
        """

        def one(number: int) -> Accepted:
            key, began = f"chaos-{secrets.token_hex(12)}", time.time()
            body = wanted(number, **fields)
            status, found, tries = self.until_answered(
                "/v1/credentials/issue", body, key=key, patience=patience
            )
            assert status == ACCEPTED, (status, found)
            accepted = Accepted(found["credential_id"], found["task_id"], key, began, time.time(), tries)
            with self._lock:
                self.accepted.append(accepted)
            time.sleep(pause)
            return accepted

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, range(count)))

    def issue_batch(self, rows: int | Sequence[dict[str, Any]], **fields: Any) -> AcceptedBatch:
        """Ask for a batch: so many usual rows, or these."""
        given = [_row(number, **fields) for number in range(rows)] if isinstance(rows, int) else list(rows)
        assert len(given) <= MOST_ROWS
        body = {"template_id": "diploma", "name": "Chaos", "rows": given}
        key = f"chaos-{secrets.token_hex(12)}"
        status, found, _ = self.until_answered("/v1/batches", body, key=key)
        assert status == ACCEPTED, (status, found)
        batch = AcceptedBatch(found["batch_id"], len(given), time.time())
        self.batches.append(batch)
        return batch

    def _count(self, answer: str, began: float) -> None:
        with self._lock:
            self.answers[answer] += 1
            self.seconds.append(time.monotonic() - began)


def wanted(
    number: int, *, email: str | None = None, name: str | None = None, **fields: Any
) -> dict[str, Any]:
    """Return the body that asks for one credential."""
    return {"template_id": "diploma", **_row(number, email=email, name=name), **fields}


def _row(number: int, *, email: str | None = None, name: str | None = None) -> dict[str, Any]:
    unique = f"{number}-{secrets.token_hex(4)}"
    recipient = {"name": name or f"Ada Lovelace {number}", "email": email or f"ada-{unique}@example.com"}
    return {"recipient": recipient, "fields": {"course": "Applied Statistics"}}


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")
