# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed one by one while credentials are issued."""

from __future__ import annotations

import random
import time

from sqlalchemy import func, select

from conferral.reliable.tables import FAILURE, attempts, runs
from conferral.store.tables import credentials
from support.chaos_client import Accepted
from support.chaos_house import House, in_parts
from support.chaos_ledger import Ledger
from support.chaos_measures import load, percentile, resumed, spread, stillness
from support.chaos_processes import until

RESUMED_SECONDS = 2.0
"""G4: a run whose pool child was killed goes on within this, at p99."""
MOVING_SECONDS = 45.0
"""G4: the lease of a killed main process, one rescue scan and the work; every run moves by then."""
FINAL_SECONDS = 120.0
# What Celery says of children that were killed; the rows say the rest.
CHILD_KILLED = (r"exited with 'signal 9 \(SIGKILL\)'", "WorkerLostError", "Worker exited prematurely")
# gunicorn's words for a worker that was killed.
WEB_KILLED = (r"Worker \(pid:\d+\) was sent SIGKILL",)


def test_calm(house: House) -> None:
    """Nothing is broken: nothing is lost, doubled or repeated, and no ERROR is logged."""
    ledger = Ledger(house, "calm")
    house.issue(10)
    house.issue_batch(10)
    house.until_final(ledger.accepted, FINAL_SECONDS)
    account = ledger.finish()
    assert (account.acknowledged, account.repeated, account.recovered) == (20, 0, 0)


def test_kill_child(house: House, long: bool, seed: int) -> None:
    """SIGKILL of a pool child every 2 s during a batch: its run goes on within 2 s at p99."""
    ledger = Ledger(house, "kill_child")
    chance = random.Random(seed)
    kills = 1000 if long else 8
    batch = house.issue_batch(2000 if long else 150)
    before = len(house.processes.harms)
    while len(house.processes.harms) - before < kills:
        began = time.monotonic()
        if not house.unfinished([batch]):
            batch = house.issue_batch(2000 if long else 60)
        children = house.processes.children("hp")
        if children:
            house.processes.kill(chance.choice(children), "hp")
        time.sleep(max(0.0, 2.0 - (time.monotonic() - began)))
    house.until_final(ledger.accepted, FINAL_SECONDS)
    harms = house.processes.harms[before:]
    parked = _replay_poison(house, ledger, {harm.pid for harm in harms})
    house.until_final(ledger.accepted, FINAL_SECONDS)
    again = resumed(house, harms)
    print(  # noqa: T201
        f"\n{kills} children killed; runs that went on {spread(again)}; met by three kills in a row: {parked}"
    )
    ledger.finish(expected=CHILD_KILLED)
    assert again, "no child was killed during an effect"
    assert percentile(again, 0.99) <= RESUMED_SECONDS, sorted(again)[-5:]


def _replay_poison(house: House, ledger: Ledger, killed: set[int]) -> int:
    """Replay runs that three of our kills in a row hit by chance, as an operator would; return how many.

    Nobody can tell such a run from one that kills its process, so it waits visibly for a person. A parked
    run that anything else killed stays parked, and the ledger counts it as lost.
    """
    parked = [
        row.id
        for part in in_parts(ledger.ids())
        for row in house.rows(
            select(runs.c.id).where(
                runs.c.subject.in_(part), runs.c.state == FAILURE, runs.c.error_code == "poison"
            )
        )
    ]
    for run_id in parked:
        lost = house.rows(select(attempts.c.owner).where(attempts.c.run_id == run_id))
        owners = {int(row.owner.split("/")[2]) for row in lost}
        assert owners <= killed, f"{run_id} was parked by {owners - killed}, whom nobody killed"
        assert house.installation.run("dead", "replay", run_id).returncode == 0
    return len(parked)


def test_kill_main(house: House, long: bool, seed: int) -> None:
    """SIGKILL of one main process after the other under load: every run moves within 45 s."""
    ledger = Ledger(house, "kill_main")
    chance = random.Random(seed)
    names = ["hp", "mail", "hooks", "chain", "lp", "beat"]
    moments = []
    with load(house):
        for _ in range(34 if long else 1):
            chance.shuffle(names)
            for name in names:
                if long:
                    house.until_ready(name)
                moments.append(house.processes.kill_main(name))
                time.sleep(1.0)
        house.until_ready()
    house.until_final(ledger.accepted, FINAL_SECONDS)
    ids = [one.credential_id for one in ledger.accepted if isinstance(one, Accepted)]
    still = stillness(house, ids, moments)
    print(f"\n{len(moments)} main processes killed; no run stood still longer than {still:.1f} s")  # noqa: T201
    ledger.finish(expected=CHILD_KILLED)
    assert still <= MOVING_SECONDS


def test_kill_api(house: House, long: bool, seed: int) -> None:
    """SIGKILL of a web worker during 202s: the client repeats, and has one credential for each key."""
    ledger = Ledger(house, "kill_api")
    chance = random.Random(seed)
    with load(house, threads=4, pause=0.02):
        for _ in range(200 if long else 6):
            children = until_children(house)
            house.processes.kill(chance.choice(children), "web")
            time.sleep(0.7)
    accepted = [one for one in ledger.accepted if isinstance(one, Accepted)]
    repeated = sum(one.tries > 1 for one in accepted)
    made = house.rows(
        select(credentials.c.recipient_email, func.count())
        .where(credentials.c.id.in_([one.credential_id for one in accepted]))
        .group_by(credentials.c.recipient_email)
    )
    house.until_final(ledger.accepted, FINAL_SECONDS)
    print(f"\n{repeated} of {len(accepted)} requests were repeated; answers {dict(ledger.answers())}")  # noqa: T201
    ledger.finish(expected=WEB_KILLED)
    assert repeated, "no request was interrupted"
    assert {row[1] for row in made} == {1}
    assert ledger.answers().keys() <= {"202", "409", "429", "RemoteDisconnected", "ConnectionResetError"}


def until_children(house: House) -> list[int]:
    """Wait until the web server has workers; return them."""
    until(lambda: house.processes.children("web"), 30)
    return house.processes.children("web")


def test_kill_dispatcher(house: House, long: bool) -> None:
    """The leading dispatcher is killed between publish and mark: what it rang twice is done once."""
    ledger = Ledger(house, "kill_dispatcher")
    for _ in range(20 if long else 2):
        fired = len(house.points.fired())
        house.points.arm("dispatch.published", nth=2)
        house.issue_batch(40)
        until(lambda before=fired: len(house.points.fired()) > before, 60, lambda: "no dispatcher died")
        house.issue(4)
        house.until_final(ledger.accepted, FINAL_SECONDS)
    ledger.finish()
