# SPDX-License-Identifier: Apache-2.0
"""Who leads, for how long, and what Beat fires when, on both databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery.schedules import crontab, schedule

from conferral.reliable import beat, leadership
from conferral.reliable.app import bind, make_celery
from conferral.reliable.routing import Pool, Routing
from conferral.reliable.task import Task
from support.reliable_database import House, house_on

ROUTING = Routing(routes=(("fast.*", "fast"),), pools=(Pool("fast", "fast", "threads", 1),))


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


def lead(house: House, holder: str, detail: object = None) -> int | None:
    """Ask to lead."""
    with house.database.transaction() as session:
        return leadership.lead(session, "beat", holder, detail)


def test_leader_stays_while_it_renews_and_is_followed_when_it_does_not(house: House) -> None:
    """The epoch grows with every change of hands and never otherwise."""
    assert lead(house, "one") == 1
    for _ in range(5):
        house.time.move(leadership.RENEW_SECONDS)
        assert lead(house, "one", {"fired": "x"}) == 1
        assert lead(house, "two") is None
    with house.database.snapshot() as session:
        found = leadership.leader(session, "beat")
        assert leadership.leader(session, "nobody") is None
    assert found is not None
    assert (found.holder, found.epoch, found.detail) == ("one", 1, {"fired": "x"})
    house.time.move(leadership.LEASE_SECONDS + 0.1)
    assert lead(house, "two") == 2
    assert lead(house, "one") is None


def test_leader_is_followed_at_once_when_it_resigns_or_is_gone(house: House) -> None:
    """An orderly stop and a dead process of this host cost no waiting."""
    assert lead(house, "one") == 1
    with house.database.transaction() as session:
        leadership.resign(session, "beat", "somebody else")
    assert lead(house, "two") is None
    with house.database.transaction() as session:
        leadership.resign(session, "beat", "one")
    source = "from conferral.reliable.owner import this_process; print(this_process())"
    dead = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    assert lead(house, f"node@host {dead.strip()}") == 2
    assert lead(house, "three") == 3


class Beat(beat.SingletonScheduler):
    """A scheduler over a house; `tick` is what Celery's service calls."""

    def __init__(self, house: House, entries: dict[str, object]) -> None:
        schedule = {name: {"task": "fast.tick", "schedule": when} for name, when in entries.items()}
        app = make_celery(
            "beat", broker_url="memory://", result_url="cache+memory://", routing=ROUTING, schedule=schedule
        )
        bind(app, {"fast.tick": Task("fast.tick", lambda _: None)}, ROUTING, house.context)
        super().__init__(app)
        self._holder = f"beat-{id(self)}"

    def look(self, house: House) -> int:
        """Let it look now, as if its last renewal were old; return how many runs there are."""
        self._lead_again_at = 0.0
        self.tick()
        return house.count()


def test_slot_is_fired_once_when_several_beats_are_started(house: House) -> None:
    """One leads and fires; the others stand by; each slot is one run, also across a take-over."""
    beats = [Beat(house, {"often": 60.0}) for _ in range(3)]
    expected = 0
    for _ in range(4):
        expected += 1
        for _ in range(3):
            assert {each.look(house) for each in beats} == {expected}
            house.time.move(5)
        house.time.move(45)
    assert [each._epoch for each in beats] == [1, None, None]
    assert [bool(each._fired) for each in beats] == [True, False, False]
    beats[0].close()
    beats[1].look(house)
    assert (beats[1]._epoch, house.count()) == (2, expected + 1)


def test_slot_is_fired_once_when_two_beats_believe_to_lead(house: House) -> None:
    """A frozen leader that wakes up promises what is promised already."""
    beats = [Beat(house, {"often": schedule(timedelta(seconds=10))}) for _ in range(2)]
    for each in beats:
        each._epoch, each._lead_again_at = 1, float("inf")
        each.tick()
        each.tick()
    assert house.count() == 1


def test_missed_slot_is_fired_once_on_take_over_when_it_is_not_too_old(house: House) -> None:
    """Its age is at most the interval and at most an hour; older ones are history."""
    entries: dict[str, object] = {"daily": crontab(hour="6", minute="0"), "hourly": timedelta(hours=1)}
    house.time.move_to(datetime(2026, 1, 1, 5, 59, tzinfo=UTC))
    assert Beat(house, entries).look(house) == 1  # the hourly slot of 05:00
    house.time.move_to(datetime(2026, 1, 1, 6, 59, 30, tzinfo=UTC))
    late = Beat(house, entries)
    assert late.look(house) == 3  # 06:00 of both, though nobody led then
    assert late.look(house) == 3
    house.time.move_to(datetime(2026, 1, 2, 7, 1, 1, tzinfo=UTC))
    assert Beat(house, entries).look(house) == 4  # 07:00 of the hourly one; 06:00 is too old


@pytest.mark.parametrize(
    ("when", "now", "expected"),
    [
        (crontab(minute="*/15"), "2026-03-01T10:16:40", "2026-03-01T10:15:00"),
        (crontab(minute="0", hour="2"), "2026-03-01T02:00:00", "2026-03-01T02:00:00"),
        (crontab(minute="0", hour="2"), "2026-03-01T03:00:59", "2026-03-01T02:00:00"),
        (crontab(minute="0", hour="2"), "2026-03-01T03:01:00", None),
        (crontab(minute="30", hour="23", day_of_month="27"), "2026-03-01T00:10:00", None),
        (crontab(minute="30", hour="23", day_of_week="sat"), "2026-03-01T00:10:00", "2026-02-28T23:30:00"),
        (crontab(minute="30", hour="23", day_of_week="sun"), "2026-03-01T00:10:00", None),
        (30.0, "2026-03-01T10:00:59", "2026-03-01T10:00:30"),
        (timedelta(days=1), "2026-03-01T00:59:00", "2026-03-01T00:00:00"),
        (timedelta(days=1), "2026-03-01T02:00:00", None),
    ],
)
def test_newest_slot_is_found_unless_it_is_past_its_grace(
    when: object, now: str, expected: str | None
) -> None:
    """Every Beat on every host agrees on the slots, whenever it was started."""
    found = beat.newest_slot(when, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert (found and f"{found:%Y-%m-%dT%H:%M:%S}") == expected
