# SPDX-License-Identifier: Apache-2.0
"""Everything at once: a power cut, and a deployment under load."""

from __future__ import annotations

import os
import signal
import time

from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_measures import first_effect, load
from support.chaos_processes import is_there, until

FIRST_EFFECT_SECONDS = 30.0
"""G4: after a power cut the first effect follows the start within this."""
EXIT_SECONDS = 30.0
"""A worker that was told to end has ended by then: its patience (`runtime.md` 4)."""
FINAL_SECONDS = 120.0
WORKERS = ("hp", "mail", "hooks", "chain", "lp")
# What Celery and gunicorn say of children that were killed; the rows say the rest.
DIED = (r"exited with 'signal (9|15)", "WorkerLostError", "Worker exited prematurely", "was sent SIG")


def test_power_cycle(house: House, long: bool) -> None:
    """Supervisor, Redis and all processes are killed at once; first effect within 30 s of the start."""
    for number in range(20 if long else 1):
        ledger = Ledger(house, f"power_cycle {number + 1}")
        house.issue_batch(60)
        house.issue(10)
        until(lambda mine=ledger: _is_under_way(house, mine), 60)
        pids = house.processes.everything()
        house.processes.kill_everything()
        until(lambda pids=pids: not [pid for pid in pids if is_there(pid)], 30)
        began = time.time()
        house.installation.start()
        house.until_final(ledger.accepted, FINAL_SECONDS)
        first = first_effect(house, began) - began
        house.until_ready()
        print(f"\nfirst effect {first:.1f} s after the start")  # noqa: T201
        ledger.finish(expected=DIED)
        assert first <= FIRST_EFFECT_SECONDS


def _is_under_way(house: House, ledger: Ledger) -> bool:
    return len(house.unfinished(ledger.accepted)) > 0 and first_effect(house, ledger.began) < time.time()


def test_deploy(house: House, long: bool) -> None:
    """SIGTERM to the group of every worker under load: each ends within 30 s, and nothing is lost."""
    ledger = Ledger(house, "deploy")
    slowest = 0.0
    with load(house):
        house.issue_batch(60)
        for _ in range(30 if long else 1):
            house.until_ready()
            mains = {name: house.processes.mains()[name] for name in WORKERS}
            began = time.monotonic()
            for pid in mains.values():
                # Celery's own children get it, too: the careless way of systemd and of a terminal.
                os.killpg(pid, signal.SIGTERM)
            until(lambda pids=mains: not [pid for pid in pids.values() if is_there(pid)], EXIT_SECONDS)
            slowest = max(slowest, time.monotonic() - began)
            until(lambda old=mains: _are_new(house, old), 60)
            time.sleep(20 if long else 0)
    house.until_final(ledger.accepted, FINAL_SECONDS)
    print(f"\nall workers ended within {slowest:.1f} s")  # noqa: T201
    ledger.finish(expected=DIED)


def _are_new(house: House, old: dict[str, int]) -> bool:
    now = house.processes.mains()
    return all(now.get(name, pid) != pid for name, pid in old.items())
