# SPDX-License-Identifier: Apache-2.0
"""A worker that lives and does not listen is found, examined and restarted; one that is busy is not."""

from __future__ import annotations

import io
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from conferral.cli import deafness, processes
from conferral.cli.child import READY, Patience, Spec
from conferral.cli.output import Output
from conferral.cli.supervisor import GUILTY, Supervisor
from conferral.reliable.tables import runs
from conferral.settings import Settings
from conferral.store.engine import open_engine
from conferral.store.migrate import upgrade
from support.redis import redis_process

POOL = processes.pool_named("mail")


def test_a_message_that_does_not_move_makes_its_pool_a_suspect() -> None:
    """Only the oldest message counts, and only after a minute and a half."""
    with redis_process() as server:
        ears = deafness.Ears(f"{server.url}/0")
        with redis.Redis.from_url(server.url) as client:
            client.lpush("default", "first", "second")
            assert list(ears.suspects(0)) == []
            assert list(ears.suspects(89)) == []
            assert list(ears.suspects(91)) == ["mail"]
            assert list(ears.suspects(92)) == [], "it is asked once"
            client.rpop("default")
            assert list(ears.suspects(200)) == []
            server.kill()
            assert list(ears.suspects(400)) == []


@pytest.mark.parametrize(
    ("due_seconds_ago", "rung", "working", "deaf"),
    [(100, True, 0, True), (10, True, 0, False), (100, False, 0, False), (100, True, 8, False)],
)
def test_a_pool_is_deaf_when_rung_runs_wait_while_slots_are_free(
    tmp_path: Path, *, due_seconds_ago: float, rung: bool, working: int, deaf: bool
) -> None:
    """Long work, fresh work and work that nobody rang for are no deafness."""
    settings = Settings.from_env({"CONFERRAL_DATA_DIR": str(tmp_path)})
    engine = open_engine(settings.database_url)
    upgrade(engine)
    now = datetime.now(UTC)
    due = now - timedelta(seconds=due_seconds_ago)
    row = {"task": "t", "queue": "default", "args": [], "priority": 0, "created_at": due, "due_at": due}
    with engine.begin() as connection:
        connection.execute(
            runs.insert().values(id="waiting", state="PENDING", rung_at=now if rung else None, **row)
        )
        for number in range(working):
            connection.execute(runs.insert().values(id=f"w{number}", state="STARTED", lease_until=now, **row))
    engine.dispose()
    assert deafness.is_deaf(settings, POOL) is deaf


def test_a_suspect_is_restarted_when_its_examiner_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor itself never opens the database; it believes an exit status."""
    monkeypatch.setattr("conferral.cli.supervisor._STALE_CHECK_SECONDS", 0.0)
    output = Output(tmp_path, io.StringIO(), colour=False)
    verdict = tmp_path / "verdict"
    verdict.write_text("0")
    boss = Supervisor(tmp_path, output)

    def python(name: str, code: str, **more: object) -> Spec:
        return Spec(name, [sys.executable, "-c", code], dict(os.environ), Patience(kill_after=5), **more)  # type: ignore[arg-type]

    asked: list[float] = []
    examiner = python("ears", f"import sys;sys.exit(int(open({str(verdict)!r}).read()))", is_one_shot=True)
    boss.start_all([python("mail", "import time;time.sleep(60)", examiner=examiner)])
    boss._state, boss._suspects = "running", lambda now: asked.append(now) or ["mail"]  # type: ignore[func-returns-value]
    child = boss._children["mail"]
    deadline = time.monotonic() + 20
    while len(asked) < 30:
        boss._tick(0.02)
        assert time.monotonic() < deadline
    assert child.restarts == 0
    verdict.write_text(str(GUILTY))
    while child.restarts == 0 or child.state != READY:
        boss._tick(0.02)
        assert time.monotonic() < deadline
    assert any("worker_deaf" in line for line in output.tail("up"))
    boss.stop_all([])
    output.close()
