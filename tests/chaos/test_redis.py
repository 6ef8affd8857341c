# SPDX-License-Identifier: Apache-2.0
"""Redis is a doorbell: killed, gone, flushed, full, slow, full of garbage or of copies, it loses no work."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from redis import Redis
from redis.exceptions import RedisError

from support.chaos_client import Accepted
from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_measures import load, percentile, stillness
from support.chaos_processes import until

POOLS = {
    "high_priority": "hp",
    "default": "mail",
    "webhooks": "hooks",
    "anchoring": "chain",
    "low_priority": "lp",
}
QUEUES = tuple(POOLS)
ISSUE = "tasks.issuance.issue_credential"
FLUSHED_SECONDS = 60.0
"""G5: after FLUSHALL everything that was rung moves again within this, and nobody acts."""
DRAINED_SECONDS = 60.0
"""G5: Redis is back, and what waited is done."""
GARBAGE_SECONDS = 5.0
"""A worker that a malformed message killed works again within this."""
ANSWER_SECONDS = 1.0
"""The API's p99 while Redis is slow, a black hole or frozen."""
FINAL_SECONDS = 180.0
# What Celery, kombu and redis-py say while their server is away; the rows say that nothing was lost.
AWAY = (
    "Connection to broker lost", "Cannot connect to", "ConnectionError",
    "TimeoutError", "Error while reading",
    "Connection refused", "Connection closed", "Connection reset", "OperationalError", "redis.exceptions",
    "Unrecoverable error", "control command", "Timed out", "consumer: ", "LOADING", "BusyLoadingError",
    "WorkerLostError", "worker_deaf", "Unexpected error", "OutOfMemoryError", "OOM command",
)  # fmt: skip
GARBAGE = (
    *AWAY, "DecodeError", "Can't decode", "unregistered task", "Refusing to deserialize",
    "ContentDisallowed",
           "Invalid", "JSONDecodeError", "ValueError", "KeyError", "TypeError", "Received and deleted",
           "AttributeError", "Received unregistered", "ring_malformed",
)  # fmt: skip


def test_redis_restart(house: House, long: bool) -> None:
    """Killed again and again under load: the API answers 202 throughout, and all is issued."""
    ledger = Ledger(house, "redis_restart")
    with load(house):
        for _ in range(5 if long else 2):
            time.sleep(1.5)
            house.processes.kill(house.processes.mains()["redis"], "redis")
            house.until_ready("redis")
    house.until_final(ledger.accepted, FINAL_SECONDS)
    account = ledger.finish(expected=AWAY)
    assert set(ledger.answers()) <= {"202"}, ledger.answers()
    assert account.acknowledged > 0


def test_redis_down(own_house: Callable[..., AbstractContextManager[House]], long: bool) -> None:
    """Gone while late-acknowledged tasks run: accepted throughout, alive or restarted, drained after."""
    with own_house(proxied=("redis",)) as house:
        assert house.redis_process is not None
        ledger = Ledger(house, "redis_down")
        house.hooks.use("hang@0.5")  # runs that last while Redis goes
        house.issue(20 if long else 8)
        house.redis_process.kill()
        began = time.monotonic()
        while time.monotonic() - began < (60.0 if long else 20.0):
            house.issue(1, threads=1)
            time.sleep(0.5)
        house.hooks.use()
        house.redis_process.start()
        house.until_ready(seconds=90.0)
        back = time.time()
        accepted = house.issue(3)
        house.until_final(accepted, DRAINED_SECONDS)
        house.until_final(ledger.accepted, FINAL_SECONDS)
        ids = [one.credential_id for one in ledger.accepted if isinstance(one, Accepted)]
        still = stillness(house, ids, [back])
        print(f"\nafter Redis came back no due run stood still longer than {still:.1f} s")  # noqa: T201 -- the figure
        ledger.finish(expected=AWAY)
        assert set(ledger.answers()) <= {"202"}, ledger.answers()


def test_redis_flush(house: House, long: bool) -> None:
    """FLUSHALL in the middle of a batch: everything moves again within 60 s, and nothing is doubled."""
    ledger = Ledger(house, "redis_flush")
    batch = house.issue_batch(10_000 if long else 150)
    until(lambda: len(house.ids_of(batch)) >= batch.rows // 2, FINAL_SECONDS)
    time.sleep(1.0)
    with house.redis() as server:
        server.flushall()
    flushed = time.time()
    house.until_final([batch], 1800.0 if long else FINAL_SECONDS)
    still = stillness(house, house.ids_of(batch), [flushed])
    print(f"\nafter FLUSHALL the last run moved after {still:.1f} s")  # noqa: T201 -- the figure
    ledger.finish(expected=AWAY)
    if not long:  # of 10,000 most had not been rung yet: they wait for their turn, not for Redis
        assert still <= FLUSHED_SECONDS


def test_redis_memory(house: House, long: bool) -> None:
    """Full, then evicting: it is named by the doctor and /readyz; nobody crashes and nothing is lost."""
    ledger = Ledger(house, "redis_memory")
    for policy, word in (("noeviction", "full"), ("allkeys-lru", "evicts")):
        with limited(house, policy):
            accepted = house.issue(40 if long else 6)
            until(lambda word=word: redis_check(house) == word, 20.0, lambda: redis_check(house))
            said = house.installation.run("doctor").stdout
            assert "memory" in said or "evict" in said or "drops whole queues" in said, said
            restarts = sum(int(str(row["restarts"])) for row in house.installation.status().values())
            time.sleep(3.0)
            again = sum(int(str(row["restarts"])) for row in house.installation.status().values())
            assert again - restarts <= 1, "a crash loop"
        house.until_final(accepted, FINAL_SECONDS)
    ledger.finish(expected=AWAY)
    assert set(ledger.answers()) <= {"202"}, ledger.answers()


def test_redis_slow(own_house: Callable[..., AbstractContextManager[House]], long: bool) -> None:
    """Half a second late, a black hole, frozen: the API's p99 stays below a second."""
    with own_house(proxied=("redis",)) as house:
        assert house.redis_proxy is not None
        assert house.redis_process is not None
        ledger = Ledger(house, "redis_slow")
        house.until_final(house.issue(2), FINAL_SECONDS)
        frozen = house.redis_process.process.pid
        worst: dict[str, float] = {}
        faults: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "delayed": (lambda: setattr(house.redis_proxy, "delay_seconds", 0.5), house.redis_proxy.heal),
            "black hole": (house.redis_proxy.black_hole, house.redis_proxy.heal),
            "frozen": (lambda: os.kill(frozen, signal.SIGSTOP), lambda: os.kill(frozen, signal.SIGCONT)),
        }
        for name, (begin, end) in faults.items():
            begin()
            before = len(house.client.seconds)
            try:
                house.issue(600 if long else 60, threads=2)
            finally:
                end()
            worst[name] = percentile(house.client.seconds[before:], 0.99)
        house.until_ready(seconds=90.0)
        house.until_final(ledger.accepted, FINAL_SECONDS)
        figures = ", ".join(f"{name} {took:.2f} s" for name, took in worst.items())
        print(f"\nAPI p99: {figures}")  # noqa: T201 -- the figure
        ledger.finish(expected=AWAY)
        assert max(worst.values()) < ANSWER_SECONDS, worst


def test_garbage_messages(house: House, long: bool) -> None:
    """Not JSON, wrong JSON, pickle, unknown tasks, forged ids: workers are back, nothing is done for them."""
    ledger = Ledger(house, "garbage_messages")
    away: dict[str, float] = {}
    for _ in range(10 if long else 1):
        for queue, pool in POOLS.items():
            before = house.processes.mains()[pool]
            with house.redis() as server:
                server.lpush(queue, *garbage(queue))
            until(
                lambda pool=pool, before=before: house.processes.mains().get(pool) not in {None, before}, 30.0
            )
            died = time.monotonic()
            house.until_ready(pool, seconds=30.0)
            away[pool] = max(away.get(pool, 0.0), time.monotonic() - died)
    house.until_final(house.issue(5), FINAL_SECONDS)
    assert drained(house)
    figures = ", ".join(f"{pool} {took:.1f} s" for pool, took in away.items())
    print(f"\nready again: {figures}")  # noqa: T201 -- the figure
    ledger.finish(expected=GARBAGE)
    assert max(away.values()) <= GARBAGE_SECONDS, away


def test_duplicate_messages(house: House, long: bool) -> None:
    """Every message copied five times, again and again, also after its work is done: each effect once."""
    ledger = Ledger(house, "duplicate_messages")
    with copying(house, 20_000 if long else 1_500) as copied:
        batch = house.issue_batch(1000 if long else 80)
        house.issue(20)
        house.until_final([batch], FINAL_SECONDS)
    house.until_final(ledger.accepted, FINAL_SECONDS)
    account = ledger.finish()
    print(f"\n{copied[0]} copies were rung beside {account.acknowledged} credentials")  # noqa: T201 -- the figure
    assert copied[0] > account.acknowledged
    assert account.repeated == 0


def test_connection_blip(house: House, long: bool, seed: int) -> None:
    """Connections cut while tasks run: Celery starts them elsewhere, the second claim is refused."""
    ledger = Ledger(house, "connection_blip")
    chance = random.Random(seed)
    with load(house, pause=0.05):
        for _ in range(40 if long else 4):
            time.sleep(chance.uniform(0.3, 1.2))
            with house.redis() as server:
                server.client_kill_filter(_type="normal", skipme=True)
    house.until_final(ledger.accepted, FINAL_SECONDS)
    account = ledger.finish(expected=AWAY)
    assert account.repeated == 0


@contextmanager
def limited(house: House, policy: str) -> Iterator[None]:
    """Leave Redis less memory than it has used already."""
    with house.redis() as server:
        before = server.config_get("maxmemory*")
        server.config_set("maxmemory-policy", policy)
        server.config_set("maxmemory", "900kb")
        try:
            yield
        finally:
            server.config_set("maxmemory", before["maxmemory"])
            server.config_set("maxmemory-policy", before["maxmemory-policy"])


def redis_check(house: House) -> str:
    """Return what /readyz says of Redis."""
    connection = http.client.HTTPConnection("127.0.0.1", house.installation.ports[0], timeout=10)
    try:
        connection.request("GET", "/readyz", headers={"Host": f"localhost:{house.installation.ports[0]}"})
        answer = connection.getresponse()
        return str(json.loads(answer.read())["checks"]["redis"])
    finally:
        connection.close()


def garbage(queue: str) -> list[str]:
    """Return messages that nobody of ours would send; the last one is not JSON and kills a worker's main."""
    return [
        envelope(queue, "tasks.nobody.knows", [["x"]]),
        envelope(queue, ISSUE, [{"not": "ids"}]),
        envelope(queue, ISSUE, [["00000000-0000-7000-8000-000000000000"]]),
        envelope(queue, ISSUE, [["x"]], content_type="application/x-python-serialize"),
        "[1, 2, 3]",
        "this is not JSON",
    ]  # fmt: skip


def envelope(queue: str, task: str, args: list[object], *, content_type: str = "application/json") -> str:
    """Return a message as kombu writes it to a Redis list."""
    body = base64.b64encode(json.dumps([args, {}, {}]).encode()).decode()
    return json.dumps({
        "body": body, "content-encoding": "utf-8", "content-type": content_type,
        "headers": {"lang": "py", "task": task, "id": "forged", "root_id": "forged", "retries": 0},
        "properties": {
            "correlation_id": "forged", "delivery_mode": 2, "delivery_tag": os.urandom(8).hex(),
            "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": queue}, "body_encoding": "base64",
        },
    })  # fmt: skip


def drained(house: House) -> bool:
    """Whether no queue holds garbage any more."""
    with house.redis() as server:
        return not any(b"not JSON" in one for queue in QUEUES for one in server.lrange(queue, 0, -1))


@contextmanager
def copying(house: House, most: int) -> Iterator[list[int]]:
    """Copy every message on every queue five times, ten times a second; yield the count."""
    ended, copied = threading.Event(), [0]

    def copy_all(server: Redis) -> None:
        for queue in QUEUES:
            for message in server.lrange(queue, 0, 20):
                if copied[0] < most:
                    server.lpush(queue, *[message] * 5)
                    copied[0] += 5

    def go_on() -> None:
        with house.redis() as server:
            while not ended.wait(0.1):
                with suppress(RedisError):
                    copy_all(server)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield copied
    finally:
        ended.set()
        thread.join()
