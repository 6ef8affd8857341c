# SPDX-License-Identifier: Apache-2.0
"""Everything at once: processes killed and frozen, Redis killed and flushed, relay and endpoint at fault.

`--storm N` says how many credentials. Half of them are asked for one by one, half as a batch; first in calm,
then in the storm, in one house. Only the pauses between retries are shortened, or a webhook that met three
faults would be due in two hours; leases, heartbeats and everything else are those of production.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pytest
from redis.exceptions import RedisError
from sqlalchemy import select

from conferral.reliable.tables import FAILURE, attempts, runs
from support.chaos_house import House, in_parts
from support.chaos_ledger import Account, Ledger
from support.chaos_processes import is_there

RETRY_SCALE = "0.01"
SHORT, LONG = 60, 2000
KILL_EVERY_SECONDS = 2.0
REDIS_KILLS = 3
FREEZE_EVERY_SECONDS = 60.0
FROZEN_SECONDS, FROZEN_LONG_SECONDS = 5.0, 35.0  # the long one outlasts a lease
# A fifth of all answers is wrong, three in a hundred leave the sender in doubt.
MAIL_FAULTS = ("connect=drop@0.09", "data=drop@0.08", "dot=drop@0.03")
HOOK_FAULTS = ("503@0.17", "close@0.0361")  # of what the first leaves: three in a hundred of all
VICTIMS = ("hp child", "hp child", "hp", "mail", "hooks", "chain", "lp", "beat")
REDIS_SECONDS_EACH = 0.02  # Redis is troubled so often that it has met everything before the end
LEAST_SECONDS = 10.0  # that the requests take, so that even a short storm has the time for it
SECONDS_EACH = 1.5
"""No promise: after so many for each credential something is stuck."""
# What is said when processes and Redis die; the rows say that nothing was lost.
SAID = (
    r"exited with 'signal 9 \(SIGKILL\)'", "WorkerLostError", "Worker exited prematurely",
    "Connection to broker lost", "Cannot connect to", "ConnectionError", "TimeoutError",
    "Error while reading",
    "Connection refused", "Connection closed", "Connection reset", "OperationalError", "redis.exceptions",
    "Unrecoverable error", "control command", "Timed out", "consumer: ", "LOADING", "BusyLoadingError",
    "worker_deaf", "Unexpected error", "Error in timer",
)  # fmt: skip


@dataclass
class Storm:
    """What has been done to a house so far."""

    house: House
    chance: random.Random
    frozen_seconds: float
    redis_every_seconds: float
    kills: int = 0
    redis_kills: int = 0
    flushes: int = 0
    freezes: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def kill(self) -> None:
        """Kill a worker process: a pool child or a main process."""
        victim = self.chance.choice(VICTIMS)
        processes = self.house.processes
        with contextlib.suppress(KeyError):  # it has not come back yet
            if victim == "hp child":
                children = processes.children("hp")
                self.kills += bool(children and processes.kill(self.chance.choice(children), "hp"))
            else:
                self.kills += bool(processes.kill_main(victim))

    def trouble_redis(self) -> None:
        """Kill Redis, three times in all; flush it once, after the first time."""
        if self.redis_kills == 1 and not self.flushes:
            with contextlib.suppress(RedisError), self.house.redis() as server:
                server.flushall()
                self.flushes += 1
        elif self.redis_kills < REDIS_KILLS:
            with contextlib.suppress(KeyError):
                pid = self.house.processes.mains()["redis"]
                self.redis_kills += bool(self.house.processes.kill(pid, "redis"))

    def freeze(self) -> None:
        """Freeze the process that sends mail or webhooks, and thaw it later."""
        name = self.chance.choice(("mail", "hooks"))
        pid = self.house.processes.mains().get(name)
        if pid is not None and is_there(pid):
            with contextlib.suppress(ProcessLookupError), self.house.processes.frozen(pid):
                self.freezes += 1
                self.ended.wait(self.frozen_seconds)

    def rage(self) -> None:
        """Kill every two seconds, until the storm ends."""
        redis_at = time.monotonic()
        while not self.ended.wait(KILL_EVERY_SECONDS):
            self.kill()
            if time.monotonic() >= redis_at:
                self.trouble_redis()
                redis_at = time.monotonic() + self.redis_every_seconds

    def chill(self) -> None:
        """Freeze once a minute, the first time soon."""
        self.ended.wait(KILL_EVERY_SECONDS / 2)
        while not self.ended.is_set():
            self.freeze()
            self.ended.wait(FREEZE_EVERY_SECONDS)


def test_storm(
    own_house: Callable[..., AbstractContextManager[House]],
    request: pytest.FixtureRequest,
    long: bool,
    seed: int,
) -> None:
    """N final, none lost, no second identity; repeats only where nobody could know; and what it cost."""
    count = request.config.option.storm or (LONG if long else SHORT)
    with own_house(keys=max(2, count // 200), CONFERRAL_RETRY_SCALE=RETRY_SCALE) as house:
        calm, _ = issued(house, "calm", count)
        frozen = FROZEN_LONG_SECONDS if long else FROZEN_SECONDS
        storm = Storm(house, random.Random(seed), frozen, count * REDIS_SECONDS_EACH)
        house.mails.use(*MAIL_FAULTS)
        house.hooks.use(*HOOK_FAULTS, options=house.hooks.options)
        before = len(house.mails.seen()) + len(house.hooks.seen())
        with raging(storm):
            stormy, account = issued(house, "storm", count, storm)
        seen = [*house.mails.seen(), *house.hooks.seen()]
        withheld = sum(not line.get("answer", line.get("status")) for line in seen)
        told = f"{storm.kills} processes and Redis {storm.redis_kills}x killed, {storm.flushes} flush"
        print(  # noqa: T201 -- the figures
            f"\n{count} credentials: {told}, {storm.freezes} freezes, {len(seen) - before} effects, "
            f"{withheld} in doubt, {account.repeated} repeats; "
            f"{stormy:.1f} s, {stormy / calm:.1f}x of {calm:.1f} s in calm"
        )
        assert account.acknowledged == count
        assert account.repeated - account.excused == 0
        assert storm.redis_kills == REDIS_KILLS
        assert storm.flushes == 1


def issued(house: House, name: str, count: int, storm: Storm | None = None) -> tuple[float, Account]:
    """Issue so many credentials; return the seconds until all was final, and the account."""
    ledger, began = Ledger(house, f"storm: {name}"), time.monotonic()
    house.issue_batch(count - count // 2)
    house.issue(count // 2, threads=4, patience=300.0, pause=4 * LEAST_SECONDS / (count // 2))
    house.until_final(ledger.accepted, 60.0 + SECONDS_EACH * count)
    took = time.monotonic() - began
    if storm is not None:
        storm.ended.set()
        house.mails.use()
        house.hooks.use()
        house.until_ready(seconds=120.0)
        if replay_poison(house, ledger):
            house.until_final(ledger.accepted, 120.0)
    return took, ledger.finish(expected=SAID if storm is not None else ())


@contextlib.contextmanager
def raging(storm: Storm) -> Iterator[None]:
    """Let a storm rage beside the block."""
    threads = [threading.Thread(target=storm.rage), threading.Thread(target=storm.chill)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        storm.ended.set()
        for thread in threads:
            thread.join()


def replay_poison(house: House, ledger: Ledger) -> int:
    """Replay, as an operator would, what three of our own kills in a row hit by chance; return how many."""
    killed = {harm.pid for harm in house.processes.harms}
    found = []
    for part in in_parts(ledger.ids()):
        mine = (runs.c.subject.in_(part), runs.c.state == FAILURE, runs.c.error_code == "poison")
        found += [row.id for row in house.rows(select(runs.c.id).where(*mine))]
    for run_id in found:
        lost = house.rows(select(attempts.c.owner).where(attempts.c.run_id == run_id))
        assert {int(row.owner.split("/")[2]) for row in lost} <= killed, run_id
        assert house.installation.run("dead", "replay", run_id).returncode == 0
    return len(found)
