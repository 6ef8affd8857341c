# SPDX-License-Identifier: Apache-2.0
"""Several `celery beat` processes: one fires, each slot once, whoever dies."""

from __future__ import annotations

import signal
import time
from typing import Any

from sqlalchemy import select

from conferral.reliable import leadership
from conferral.reliable.tables import runs
from support.freezing import freeze
from support.reliable_stand import Node, Stand, stand

INTERVAL = 2.0
TAKE_OVER_SECONDS = 15.0
SCHEDULE: dict[str, Any] = {"often": {"task": "wait.tick", "schedule": INTERVAL}}


def leader(house: Stand, name: str = "beat") -> leadership.Leader | None:
    """Return who leads."""
    with house.database.snapshot() as session:
        return leadership.leader(session, name)


def slots(house: Stand) -> list[str]:
    """Return the keys of all firings in order."""
    with house.database.snapshot() as session:
        return list(session.execute(select(runs.c.key).order_by(runs.c.key)).scalars())


def leads(house: Stand, beats: list[Node]) -> Node:
    """Wait until one of the processes leads; return it."""

    def of(node: Node) -> bool:
        found = leader(house)
        return found is not None and found.holder.split("/")[2] == str(node.pid)

    house.until(lambda: any(of(node) for node in beats), seconds=30, why=lambda: house.logs)
    return next(node for node in beats if of(node))


def test_each_slot_is_fired_once_when_three_beats_run_and_die() -> None:
    """A stopped, a killed and a frozen leader: the next leads in time, and no slot is doubled."""
    with stand() as house:
        beats = [house.beat(f"beat{n}", SCHEDULE) for n in range(3)]
        first = leads(house, beats)
        house.until(lambda: len(slots(house)) >= 2, why=lambda: house.logs)
        epochs = [_epoch(house)]

        first.signal(signal.SIGTERM)
        assert first.wait(20) == 0
        beats.remove(first)
        killed = leads(house, beats)
        epochs.append(_epoch(house))

        killed.signal(signal.SIGKILL)
        began = time.monotonic()
        beats.remove(killed)
        third = leads(house, beats)
        assert time.monotonic() - began < TAKE_OVER_SECONDS
        epochs.append(_epoch(house))

        fourth = house.beat("beat3", SCHEDULE)
        freeze(house.url, third.pid)
        began = time.monotonic()
        leads(house, [fourth])
        assert time.monotonic() - began < TAKE_OVER_SECONDS + 10  # its own start included
        epochs.append(_epoch(house))
        third.signal(signal.SIGCONT)

        count = len(slots(house))
        house.until(lambda: len(slots(house)) >= count + 2)
        fired = slots(house)
        times = [key.removeprefix("tick:often:")[:19] for key in fired]
        assert len(set(times)) == len(times)
        assert epochs == sorted(set(epochs))
        assert fired[0].startswith("tick:often:")
        assert not list(house.folder.glob("celerybeat*"))


def _epoch(house: Stand) -> int:
    found = leader(house)
    assert found is not None
    return found.epoch


def test_firing_is_executed_when_a_worker_is_there_and_redis_was_away() -> None:
    """A slot is a row: what Beat fires while Redis is away is executed when it is back."""
    with stand() as house:
        house.worker("wait")
        house.redis.kill()
        beat = house.beat("beat", {"once": {"task": "wait.tick", "schedule": 3600.0}})
        house.until(lambda: slots(house), seconds=30, why=lambda: house.logs)
        house.redis.start()
        house.until(lambda: [line[1] for line in house.effects()] == ["tick"], why=lambda: house.logs)
        assert beat.process.poll() is None
        assert list((house.folder / "alive").glob("beat@*.alive"))


def test_dispatcher_is_succeeded_in_time_when_its_process_is_frozen() -> None:
    """SIGSTOP is the worst death: the lease has to run out; at most 15 s, and the epoch grows."""
    with stand() as house:
        first = house.worker("wait", "first")
        before = leader(house, "dispatcher")
        assert before is not None
        house.worker("wait", "second")
        freeze(house.url, first.pid)
        began = time.monotonic()

        def succeeded() -> bool:
            found = leader(house, "dispatcher")
            return found is not None and found.epoch > before.epoch

        house.until(succeeded, seconds=TAKE_OVER_SECONDS, why=lambda: house.logs)
        assert time.monotonic() - began <= TAKE_OVER_SECONDS
        first.signal(signal.SIGCONT)
