# SPDX-License-Identifier: Apache-2.0
"""Dead letters and what people see of runs, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from conferral.reliable import dead_letters, runs, status
from conferral.reliable.dead_letters import Filter
from conferral.reliable.errors import LeaseLost, Permanent
from conferral.reliable.promises import BULK
from conferral.reliable.tables import FAILURE, PENDING, REVOKED, STARTED, SUCCESS
from support.reliable_database import House, house_on, rings_of


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


def parked(house: House, code: str = "mail_refused", **options: object) -> str:
    """Return a run that ended as a dead letter."""
    run_id = house.promise(**options)
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        runs.park(session, run, Permanent(code))
    house.bell.take()
    return run_id


def test_dead_letters_are_counted_by_cause(house: House) -> None:
    """An operator sees causes, not rows; discarded and other people's are not among them."""
    first = parked(house, tenant="a")
    house.time.move(60)
    parked(house, tenant="b")
    parked(house, "chain_down", name="slow.do", tenant="b")
    with house.database.snapshot() as session:
        found = dead_letters.causes(session)
        assert [(one.task, one.code, one.count) for one in found] == [
            ("fast.do", "mail_refused", 2),
            ("slow.do", "chain_down", 1),
        ]
        assert found[0].oldest == house.one(first).finished_at
        assert [one.id for one in dead_letters.listed(session, Filter(tenant="a"))] == [first]
        assert dead_letters.listed(session, Filter(code="none")) == []
        assert len(dead_letters.listed(session, Filter(task="fast.do"), limit=1)) == 1


def test_replay_gives_a_fresh_budget_and_keeps_the_fence(house: House) -> None:
    """The same identity again: an old zombie must not match, the policy counts from here."""
    run_id = house.promise()
    (zombie,) = house.claim(run_id)
    with house.database.transaction() as session:
        runs.park(session, zombie, Permanent("mail_refused"))
    house.bell.take()
    with house.database.transaction() as session:
        assert dead_letters.replay(session, Filter(code="mail_refused")) == [run_id]
        assert dead_letters.replay(session, Filter(code="mail_refused")) == []
    assert [ring.run_id for ring in rings_of(house)] == [run_id]
    row = house.one(run_id)
    assert (row.state, row.spent, row.attempt, row.error_code, row.finished_at) == (PENDING, 0, 1, None, None)
    (again,) = house.claim(run_id)
    assert (again.attempt, again.spent) == (2, 1)
    with pytest.raises(LeaseLost), house.database.transaction() as session:
        zombie.settle(session)


def test_bulk_replay_is_left_to_the_dispatcher(house: House) -> None:
    """10,000 replayed mails must not go past its bounds and rates."""
    run_id = parked(house, priority=BULK)
    rationed = parked(house, name="rationed.do")
    with house.database.transaction() as session:
        assert set(dead_letters.replay(session, Filter())) == {run_id, rationed}
    assert rings_of(house) == []
    assert house.one(run_id).rung_at is None


def test_replayed_run_is_merged_when_its_successor_waits(house: House) -> None:
    """The successor does the work of both."""
    first = parked(house, coalesce="log")
    second = house.promise(coalesce="log")
    with house.database.transaction() as session:
        assert dead_letters.replay(session, Filter(run_ids=(first,))) == [first]
    row = house.one(first)
    assert (row.state, row.result) == (SUCCESS, {"merged_into": second})


def test_discarded_dead_letters_are_gone_from_the_list_and_stay_in_the_history(house: House) -> None:
    """Given up is a final state of its own, with its reason."""
    run_id, other = parked(house), parked(house, "other")
    with house.database.transaction() as session:
        assert dead_letters.discard(session, Filter(code="mail_refused")) == [run_id]
        assert dead_letters.discard(session, Filter(code="mail_refused")) == []
        assert dead_letters.replay(session, Filter(run_ids=(run_id,))) == []
    assert (house.state(run_id), house.one(run_id).error_code) == (REVOKED, "mail_refused")
    assert house.state(other) == FAILURE


def test_ended_run_is_revived_when_its_work_is_found_undone(house: House) -> None:
    """Whoever has shown that the effect is missing makes the same run due again."""
    run_id = house.promise(coalesce="log")
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        assert not dead_letters.revive(session, run_id)
    with house.database.transaction() as session:
        run.settle(session, "wrong")
    with house.database.transaction() as session:
        assert dead_letters.revive(session, run_id)
        assert not dead_letters.revive(session, run_id)
    row = house.one(run_id)
    assert (row.state, row.result, row.finished_at, row.attempt, row.spent) == (PENDING, None, None, 1, 0)
    (run,) = house.claim(run_id)
    with house.database.transaction() as session:
        run.settle(session)
    house.promise(coalesce="log")
    with house.database.transaction() as session:
        assert not dead_letters.revive(session, run_id)
        assert dead_letters.listed(session) == []


def test_timeline_explains_everything_that_was_promised_for_a_subject(house: House) -> None:
    """Runs in time order, each with its attempts."""
    first = parked(house, subject="cred_1")
    house.time.move(1)
    second = house.promise("slow.do", subject="cred_1")
    house.promise(subject="cred_2")
    with house.database.snapshot() as session:
        found = status.timeline(session, "cred_1")
    assert [(one.run.id, one.run.state, [a.outcome for a in one.attempts]) for one in found] == [
        (first, FAILURE, ["failure"]),
        (second, PENDING, []),
    ]


def test_queues_are_counted_by_what_is_still_to_do(house: House) -> None:
    """Due, scheduled, rung, working, dead: the operator's line of one queue."""
    parked(house)
    house.claim(house.promise())
    house.promise()
    waiting = house.promise(priority=BULK)
    house.promise(due_at=house.time() + timedelta(hours=1))
    with house.database.snapshot() as session:
        found = status.queue_status(session, "fast", house.time())
    oldest = house.one(waiting).due_at
    assert found == status.QueueStatus("fast", 2, oldest, scheduled=1, rung=1, working=1, dead=1)


def test_group_is_counted_by_task_and_state(house: House) -> None:
    """A waiting run reads as started, as everywhere."""
    parked(house, group_key="batch")
    (run,) = house.claim(house.promise(group_key="batch"))
    with house.database.transaction() as session:
        run.wait(session, "log")
    house.claim(house.promise(group_key="batch"))
    house.promise("slow.do", group_key="batch")
    house.promise("slow.do", group_key="another")
    with house.database.snapshot() as session:
        counts = status.counts_by_task(session, "batch")
    assert counts == {"fast.do": {FAILURE: 1, STARTED: 2}, "slow.do": {PENDING: 1}}
