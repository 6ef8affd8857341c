# SPDX-License-Identifier: Apache-2.0
"""What has happened is recorded, whatever the database does at that moment: once, and never instead of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from conferral.reliable import recording
from conferral.reliable.recording import record
from conferral.reliable.rescue import rescue_expired
from conferral.reliable.runs import Run
from conferral.reliable.tables import SUCCESS
from conferral.reliable.task import FENCED, Task
from support.reliable_database import House, house_on

AWAY = OperationalError("COMMIT", {}, Exception("away"))


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Return an empty house on each database in turn."""
    with house_on(request.param, tmp_path) as found:
        yield found


def execute(house: House, function: Callable[[Run], None]) -> tuple[str, Run]:
    """Promise a run, and execute it as a function."""
    run_id = house.promise()
    (run,) = house.executor({"fast.do": Task("fast.do", lambda run, _: function(run))}).execute(
        "fast.do", [run_id]
    )
    return run_id, run


def transactions(house: House, *, before: int = 0, after: int = 0) -> Callable[[], Any]:
    """Return transactions of which the first ones fail: so many before their commit, then so many after."""
    left = [before, after]

    @contextmanager
    def transaction() -> Iterator[Session]:
        with house.database.transaction() as session:
            yield session
            if left[0]:
                left[0] -= 1
                raise AWAY
        if left[1]:
            left[1] -= 1
            raise AWAY

    return transaction


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (0, 1), (2, 1)])
def test_effect_is_recorded_once_when_the_database_is_away(house: House, before: int, after: int) -> None:
    """Not committed: again. Committed and the answer lost: the state is read, nothing is written twice."""
    written: list[int] = []

    def act(run: Run) -> None:
        def write(session: Session) -> None:
            written.append(1)
            run.settle(session, {"sent": True})

        record(transactions(house, before=before, after=after), run, write)

    run_id, run = execute(house, act)
    assert (run.outcome, house.state(run_id)) == (SUCCESS, SUCCESS)
    assert house.outcomes(run_id) == ["success"]
    assert len(written) == before + 1


def test_record_is_refused_when_the_run_was_rescued_meanwhile(house: House) -> None:
    """Who comes too late writes nothing: the run is somebody else's."""

    def act(run: Run) -> None:
        house.time.move(60)
        with house.database.transaction() as session:
            rescue_expired(session, lambda _: None)
        record(house.database.transaction, run, run.settle)

    run_id, run = execute(house, act)
    assert run.outcome == FENCED
    assert house.outcomes(run_id) == ["fenced"]


def test_record_is_not_repeated_when_the_database_refuses_it(house: House) -> None:
    """A refusal is no absence: it is raised at once."""
    tried: list[int] = []

    def act(run: Run) -> None:
        def write(_: Session) -> None:
            tried.append(1)
            raise IntegrityError("INSERT", {}, Exception("refused"))

        record(house.database.transaction, run, write)

    execute(house, act)
    assert len(tried) == 1


def test_record_ends_when_the_database_stays_away(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is not blocked for ever; the lease brings the run back."""
    monkeypatch.setattr(recording, "PATIENCE_SECONDS", 0.0)

    def act(run: Run) -> None:
        record(transactions(house, before=100), run, run.settle)

    run_id, _ = execute(house, act)
    assert house.outcomes(run_id) == ["retry"]
