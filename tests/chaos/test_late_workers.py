# SPDX-License-Identifier: Apache-2.0
"""Workers that come back too late, runs that kill whoever executes them, and clocks that die."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import select

from conferral.reliable import leadership
from conferral.reliable.tables import FAILURE, attempts, runs
from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_processes import until
from support.freezing import freeze
from support.postgres import postgres_server
from support.reliable_stand import Node, Stand, stand

LEASE_SECONDS = 30.0
"""`CONFERRAL_LEASE_SECONDS`, as in production: a frozen worker's runs belong to it for so long."""
FINAL_SECONDS = LEASE_SECONDS + 60.0
FENCED_SECONDS = 60.0
TAKE_OVER_SECONDS = 15.0
"""G7: whatever became of the leading Beat, another leads by then."""
INTERVAL_SECONDS = 16.0
"""Longer than a take-over, so that no slot may be missed."""
ISSUE = "tasks.issuance.issue_credential"
CHILD_KILLED = (r"exited with 'signal 9 \(SIGKILL\)'", "WorkerLostError", "Worker exited prematurely")


def test_zombie(house: House) -> None:
    """SIGSTOP past the lease, another finishes, SIGCONT: the late worker is fenced and says so."""
    ledger = Ledger(house, "zombie")
    house.mails.use("dot=hang")
    house.hooks.use("hang")
    seen = len(house.mails.seen()), len(house.hooks.seen())
    house.issue(3)
    until(lambda: len(house.mails.seen()) > seen[0] and len(house.hooks.seen()) > seen[1], 60)
    mains = house.processes.mains()
    with house.processes.frozen(mains["mail"], mains["hooks"]):
        house.mails.use()
        house.hooks.use()
        with house.heir("mail"), house.heir("hooks"):
            house.until_final(ledger.accepted, FINAL_SECONDS)
    until(lambda: len(_fenced(house, ledger)) > 1, FENCED_SECONDS, lambda: _outcomes(house, ledger))
    late = {*_fenced(house, ledger)}
    until(lambda: {json.loads(line)["run_id"] for line in _lines(house, "run_fenced")} >= late, 10)
    print(f"\n{len(late)} late attempts were fenced")  # noqa: T201
    account = ledger.finish()
    assert account.recovered >= 2


def _outcomes(house: House, ledger: Ledger) -> list[tuple[str, str]]:
    ids = [one.credential_id for one in house.client.accepted[-len(ledger.accepted) :]]
    joined = attempts.join(runs, runs.c.id == attempts.c.run_id)
    about = select(runs.c.id, attempts.c.outcome).select_from(joined).where(runs.c.subject.in_(ids))
    return [(row.id, row.outcome) for row in house.rows(about)]


def _fenced(house: House, ledger: Ledger) -> list[str]:
    return [run_id for run_id, outcome in _outcomes(house, ledger) if outcome == "fenced"]


def _lines(house: House, event: str) -> list[str]:
    return [line for line in house.installation.log().splitlines() if f'"{event}"' in line]


def test_poison(house: House, long: bool) -> None:
    """A run that kills whoever executes it is parked after three crashes; its neighbours are not charged."""
    for _ in range(10 if long else 1):
        ledger = Ledger(house, "poison")
        before = len(house.points.fired())
        house.points.arm("pdf.rendered", nth=4)
        batch = house.issue_batch(16)
        until(lambda before=before: len(house.points.fired()) > before, 60)
        pid = house.points.fired()[before].pid
        poison = _begun_by(house, pid)
        house.points.arm("pdf.rendered", only=poison, times=2)
        house.until_final([batch], FINAL_SECONDS)
        account = ledger.finish(expected=CHILD_KILLED, failures=["poison"])
        assert account.attempted["parked"] == 1
        (row,) = house.rows(select(runs).where(runs.c.id == poison))
        assert (row.state, row.error_code, row.spent) == (FAILURE, "poison", 3)
        assert house.outcomes(poison) == ["lost"] * 3
        near = select(runs.c.id).where(runs.c.group_key == batch.batch_id, runs.c.task == ISSUE)
        others = {tuple(house.outcomes(one.id)) for one in house.rows(near) if one.id != poison}
        assert others == {("success",)}
        assert account.attempted["mails"] == 15


def _begun_by(house: House, pid: int) -> str:
    """Return the run that a process had begun when it died: by its lease, or by its lost attempt."""
    mine = f"%/{pid}/%"
    begun = select(runs.c.id).where(runs.c.lease_owner.like(mine), runs.c.started_at.is_not(None))
    lost = select(attempts.c.run_id.label("id")).where(
        attempts.c.owner.like(mine), attempts.c.outcome == "lost"
    )
    until(lambda: house.rows(begun) or house.rows(lost), 10)
    return str((house.rows(begun) or house.rows(lost))[0].id)


def test_two_beats(database: str, seed: int, long: bool) -> None:
    """Three Beats; the leader is killed, the next one frozen, Redis restarted: each slot fires once."""
    schedule: dict[str, Any] = {"often": {"task": "wait.tick", "schedule": INTERVAL_SECONDS}}
    with _stand(database) as place:
        place.worker("wait")
        beats = [place.beat(f"beat{number}", schedule) for number in range(3)]
        taken = []
        for number in range(20 if long else 1):
            first = _leads(place, beats)
            place.until(lambda: _slots(place), INTERVAL_SECONDS + 10, lambda: place.logs)
            first.signal(signal.SIGKILL)
            beats.remove(first)
            taken.append(_seconds_until_led(place, beats))
            second = _leads(place, beats)
            freeze(place.url, second.pid)
            taken.append(_seconds_until_led(place, [node for node in beats if node is not second]))
            second.signal(signal.SIGCONT)
            place.redis.kill()
            place.redis.start()
            beats.append(place.beat(f"late{number}", schedule))
        count = len(_slots(place))
        place.until(lambda: len(_slots(place)) > count, INTERVAL_SECONDS + 10, lambda: place.logs)
        fired = _slots(place)
        done = [line[0] for line in place.effects()]
    moments = sorted(datetime.fromisoformat(key.removeprefix("tick:often:")) for key in fired)
    expected = (moments[-1] - moments[0]).total_seconds() / INTERVAL_SECONDS + 1
    ratio = len(fired) / expected
    print(  # noqa: T201
        f"\n-- two_beats on {database}, seed {seed} --\n  firings / expected = {ratio:.2f} ({len(fired)}), "
        f"take-over within {max(taken):.1f} s"
    )
    assert ratio == 1.0
    assert len({*fired}) == len(fired)
    assert len({*done}) == len(done), "a slot was executed twice"
    assert max(taken) <= TAKE_OVER_SECONDS


@contextlib.contextmanager
def _stand(database: str) -> Iterator[Stand]:
    if database == "sqlite":
        with stand() as found:
            yield found
        return
    with postgres_server() as url, stand(url) as found:
        yield found


def _slots(place: Stand) -> list[str]:
    with place.database.snapshot() as session:
        keys = session.execute(select(runs.c.key).where(runs.c.key.like("tick:often:%")))
        return sorted(keys.scalars())


def _leader(place: Stand, beats: list[Node]) -> Node | None:
    with place.database.snapshot() as session:
        found = leadership.leader(session, "beat")
    holder = found.holder.split("/")[2] if found is not None else ""
    return next((node for node in beats if str(node.pid) == holder), None)


def _leads(place: Stand, beats: list[Node]) -> Node:
    place.until(lambda: _leader(place, beats), 60, lambda: place.logs)
    found = _leader(place, beats)
    assert found is not None
    return found


def _seconds_until_led(place: Stand, beats: list[Node]) -> float:
    began = time.monotonic()
    _leads(place, beats)
    return time.monotonic() - began
