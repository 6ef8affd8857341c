# SPDX-License-Identifier: Apache-2.0
"""What dead and frozen workers leave, and what becomes of it, on both databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conferral.reliable import owner, rescue, runs, status
from conferral.reliable.holding import Holding
from conferral.reliable.promises import BULK
from conferral.reliable.rescue import Rescued
from conferral.reliable.tables import FAILURE, PENDING, RETRY, STARTED, SUCCESS
from support.reliable_database import LEASE_SECONDS, House, house_on


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def dead() -> str:
    """Return the owner that was a process of this host and is gone."""
    source = "from conferral.reliable.owner import this_process; print(this_process())"
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout.strip()


class Burials:
    """Remembers who was buried with which code; raises as long as it is told to."""

    def __init__(self) -> None:
        self.buried: list[tuple[str, str]] = []
        self.raises = False

    def __call__(self, _: str) -> Any:
        """Look up a task's burial."""
        return self.bury

    def bury(self, _: Any, run: runs.Run, error: Any) -> None:
        """Bury."""
        if self.raises:
            raise ZeroDivisionError
        self.buried.append((run.id, error.code))


def rescue_expired(house: House, burials: Any = lambda _: None) -> list[Rescued]:
    """Rescue what ran out."""
    with house.database.transaction() as session:
        return rescue.rescue_expired(session, burials)


def rescue_gone(house: House, *run_ids: str, burials: Any = lambda _: None) -> list[Rescued]:
    """Rescue what the dead held."""
    with house.database.transaction() as session:
        return rescue.rescue_gone(session, run_ids, burials)


def test_run_is_due_again_when_its_lease_ran_out(house: House) -> None:
    """The lost attempt is recorded by the rescuer, charged, and the fence moved on."""
    run_id = house.promise()
    (run,) = house.claim(run_id)
    assert rescue_expired(house) == []
    house.time.move(LEASE_SECONDS)
    assert rescue_expired(house) == []
    house.time.move(1)
    assert rescue_expired(house) == [Rescued(run_id, "fast.do", "fast", RETRY)]
    row = house.one(run_id)
    assert (row.state, row.due_at, row.spent, row.error_code, row.rung_at) == (
        RETRY,
        house.time(),
        1,
        "worker_lost",
        None,
    )
    assert house.outcomes(run_id) == ["lost"]
    (second,) = house.claim(run_id)
    assert (second.attempt, second.spent) == (run.attempt + 1, 2)


def test_nothing_is_rescued_when_the_owner_renewed_meanwhile(house: House) -> None:
    """A slow heartbeat that came before the rescuer's statement wins."""
    context = house.context()
    run_id = house.promise()
    holding = Holding(context)
    (run,) = house.claim(run_id, owner=holding.owner)
    holding.add([run])
    house.time.move(LEASE_SECONDS + 1)
    holding.renew()
    assert rescue_expired(house) == []
    holding.drop(run)
    house.time.move(LEASE_SECONDS + 1)
    holding.renew()
    assert len(rescue_expired(house)) == 1


def test_rescuer_changes_nothing_when_the_lease_was_renewed_after_it_looked(house: House) -> None:
    """The lease's end is part of the fence: an owner that renewed is alive."""
    run_id = house.promise()
    (run,) = house.claim(run_id)
    house.time.move(LEASE_SECONDS + 1)
    stale = house.one(run_id)
    holding = Holding(house.context())
    holding.add([run])
    holding.renew()
    with house.database.transaction() as session:
        assert rescue._rescue_all(session, [stale], house.time(), lambda _: None) == []
    assert (house.state(run_id), house.outcomes(run_id)) == (STARTED, [])


def test_lease_of_another_is_not_renewed_when_a_late_heartbeat_comes(house: House) -> None:
    """A process that lost a run must not keep the next owner's lease alive."""
    run_id = house.promise()
    holding = Holding(house.context())
    holding.add(house.claim(run_id, owner=holding.owner))
    house.time.move(LEASE_SECONDS + 1)
    rescue_expired(house)
    (second,) = house.claim(run_id, owner="another")
    until = house.one(run_id).lease_until
    house.time.move(10)
    holding.renew()
    assert house.one(run_id).lease_until == until
    assert second.attempt == 2


def test_run_is_rescued_at_once_when_its_owner_on_this_host_is_gone(house: House, dead: str) -> None:
    """A dead child is known to be dead; a living one and a foreign one are left alone."""
    orphan, alive, foreign = house.promise(), house.promise(), house.promise()
    house.claim(orphan, owner=dead)
    house.claim(alive)
    house.claim(foreign, owner="another-boot/1/1/1")
    with house.database.snapshot() as session:
        assert rescue.orphans(session) == [orphan]
    assert [one.run_id for one in rescue_gone(house, orphan, alive, foreign)] == [orphan]
    assert [house.state(run_id) for run_id in (orphan, alive, foreign)] == [RETRY, STARTED, STARTED]
    assert rescue_gone(house, orphan) == []


def test_owner_is_gone_only_when_that_is_certain() -> None:
    """What cannot be known here is not gone: rescuing the living doubles effects."""
    mine = owner.this_process()
    boot, namespace, pid, started = mine.split("/")
    assert not owner.is_gone(mine)
    assert owner.is_gone(f"{boot}/{namespace}/{pid}/{int(started) - 1}")
    assert not owner.is_gone(f"other/{namespace}/{pid}/1")
    assert not owner.is_gone(f"{boot}/other/{pid}/1")
    for nonsense in ("", "a/b/c", f"{boot}/{namespace}/x/1", f"{boot}/{namespace}/{pid}/unknown"):
        assert not owner.is_gone(nonsense)


def test_owner_is_gone_when_it_is_a_zombie() -> None:
    """A killed child that nobody has waited for yet works no more."""
    source = "from conferral.reliable.owner import this_process; print(this_process(), flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert not owner.is_gone(name)
    child.kill()
    _, _, pid, _ = name.split("/")
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
        pass
    assert owner.is_gone(name)
    child.communicate()
    assert owner.is_gone(name)


def test_run_is_poison_when_three_attempts_in_a_row_died(house: House, dead: str) -> None:
    """It is parked with the reason and buried in the same commit; it kills no fourth worker."""
    burials = Burials()
    run_id = house.promise()
    for expected in (RETRY, RETRY, FAILURE):
        house.claim(run_id, owner=dead)
        (rescued,) = rescue_gone(house, run_id, burials=burials)
        assert rescued.state == expected
    row = house.one(run_id)
    assert (row.state, row.error_code, row.finished_at) == (FAILURE, "poison", house.time())
    assert burials.buried == [(run_id, "poison")]
    assert house.outcomes(run_id) == ["lost", "lost", "lost"]
    with house.database.snapshot() as session:
        found = status.status_of(session, run_id)
    assert found is not None
    assert found.retry_count == 2


def another(dead: str) -> str:
    """Return one more owner that is gone."""
    return f"{dead.rpartition('/')[0]}/1"


def test_runs_are_not_poison_when_they_die_together(house: House, dead: str) -> None:
    """A process of threads takes all its runs with it: they come back apart; who dies alone is guilty."""
    guilty, innocent = house.promise(), house.promise()
    for _ in range(3):
        house.time.move(60)
        house.claim(guilty, owner=dead)
        house.claim(innocent, owner=dead)
        assert {one.state for one in rescue_gone(house, guilty, innocent)} == {RETRY}
    pauses = [house.one(run_id).due_at - house.time() for run_id in (guilty, innocent)]
    assert pauses[0] != pauses[1]
    assert all(0 <= pause.total_seconds() <= 2 * rescue.APART_SECONDS for pause in pauses)
    house.time.move(60)
    house.claim(guilty, owner=dead)
    assert [one.state for one in rescue_gone(house, guilty)] == [FAILURE]
    assert house.state(innocent) == RETRY


def test_run_is_poison_when_its_owner_lives_and_works_on_something_else(house: House) -> None:
    """A lease that a living process let go was lost alone, whatever else the process does."""
    let_go = house.promise()
    for expected in (RETRY, RETRY, FAILURE):
        house.claim(let_go)
        house.time.move(LEASE_SECONDS + 1)
        (other,) = house.claim(house.promise())
        assert [one.state for one in rescue_expired(house)] == [expected]
        with house.database.transaction() as session:
            other.settle(session)


def test_run_is_poison_when_it_died_ten_times_in_company(house: House, dead: str) -> None:
    """Nobody may kill workers for ever, however crowded they are."""
    guilty = house.promise()
    for number in range(rescue.POISON_TOGETHER_AFTER):
        house.time.move(60)
        house.claim(guilty, owner=dead)
        house.claim(house.promise(), owner=dead)
        assert house.state(guilty) == STARTED, number
        rescue_gone(house, guilty)
    assert (house.state(guilty), house.one(guilty).error_code) == (FAILURE, "poison")


def test_run_is_not_poison_when_another_outcome_lies_between(house: House, dead: str) -> None:
    """Only deaths in a row prove that it is the run that kills."""
    run_id = house.promise()
    for _ in range(2):
        house.claim(run_id, owner=dead)
        rescue_gone(house, run_id)
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        runs.retry(session, run, runs.Retryable("busy"), outcome="retry", delay_seconds=0)
    house.claim(run_id, owner=dead)
    assert [one.state for one in rescue_gone(house, run_id)] == [RETRY]


def test_neighbours_come_back_uncharged_and_alone_when_a_bundle_dies(house: House, dead: str) -> None:
    """One poison run must not bury 31 others."""
    settled, begun, waiting = (house.promise(priority=BULK) for _ in range(3))
    claimed = house.claim(settled, begun, waiting, owner=dead)
    with house.database.transaction() as session:
        claimed[0].settle(session)
    assert len(rescue_gone(house, settled, begun, waiting)) == 2
    assert house.state(settled) == SUCCESS
    assert (house.one(begun).spent, house.outcomes(begun)) == (1, ["lost"])
    assert (house.one(waiting).spent, house.outcomes(waiting)) == (0, [])
    assert (house.one(waiting).attempt, house.one(waiting).snoozes) == (1, 1)
    assert house.claim(begun, waiting) == []
    assert [run.number for run in house.claim(waiting)] == [1]


def test_run_is_merged_into_its_successor_when_it_is_rescued(house: House, dead: str) -> None:
    """A rescue of many does not fail for all because one of them has a successor."""
    first = house.promise(coalesce="log")
    house.claim(first, owner=dead)
    second = house.promise(coalesce="log")
    plain = house.promise()
    house.claim(plain, owner=dead)
    rescued = rescue_gone(house, first, plain)
    assert {one.run_id: one.state for one in rescued} == {first: SUCCESS, plain: RETRY}
    assert house.one(first).result == {"merged_into": second}
    assert house.state(second) == PENDING
    assert house.outcomes(first) == ["lost"]


def test_neighbours_are_rescued_when_the_burial_of_one_raises(house: House, dead: str) -> None:
    """A burial is tried again at every pass; then the run is parked without it, never rescued for ever."""
    burials = Burials()
    burials.raises = True
    poison, plain = house.promise(), house.promise()
    for _ in range(2):
        house.claim(poison, owner=dead)
        rescue_gone(house, poison)
    house.claim(poison, owner=dead)
    house.claim(plain, owner=another(dead))
    assert [one.run_id for one in rescue_gone(house, poison, plain, burials=burials)] == [plain]
    assert house.state(poison) == STARTED
    house.time.move(LEASE_SECONDS + 1)
    assert rescue_expired(house, burials) == []
    assert house.outcomes(poison) == ["lost", "lost"]
    house.time.move(rescue.BURIAL_PATIENCE.total_seconds())
    assert [one.state for one in rescue_expired(house, burials)] == [FAILURE]
    assert house.one(poison).error_code == "poison"
    assert rescue_expired(house, burials) == []


def test_burial_happens_when_it_stops_raising_in_time(house: House, dead: str) -> None:
    """A lock time-out in a burial costs a moment, not the burial."""
    burials = Burials()
    burials.raises = True
    run_id = house.promise()
    for _ in range(2):
        house.claim(run_id, owner=dead)
        rescue_gone(house, run_id)
    house.claim(run_id, owner=dead)
    assert rescue_gone(house, run_id, burials=burials) == []
    burials.raises = False
    assert [one.state for one in rescue_gone(house, run_id, burials=burials)] == [FAILURE]
    assert burials.buried == [(run_id, "poison")]
