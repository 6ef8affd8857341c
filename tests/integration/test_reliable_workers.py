# SPDX-License-Identifier: Apache-2.0
"""Real Celery workers, a real Redis: what a run goes through, and what happens to bad messages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from conferral.reliable.ids import new_run_id
from conferral.reliable.promises import BULK, Promise, promise_all
from conferral.reliable.tables import PENDING, SUCCESS, WAITING
from support.reliable_stand import Stand, stand


@pytest.fixture(scope="module")
def house() -> Iterator[Stand]:
    """Return a stand with one worker of each kind, shared by the tests of this file."""
    with stand() as found:
        found.worker("fork")
        found.worker("wait")
        yield found


@pytest.mark.parametrize("kind", ["fork", "wait"])
def test_run_is_executed_once_when_it_is_promised(house: Stand, kind: str) -> None:
    """From the promise to the effect and its record, by a process of the right kind."""
    run_id = house.promise(f"{kind}.mark", "hello")
    row = house.until_state(run_id, SUCCESS)
    assert (row.result, row.attempt) == ({"marked": "hello"}, 1)
    assert [line[1] for line in house.effects(run_id)] == ["hello"]


@pytest.mark.parametrize("kind", ["fork", "wait"])
def test_async_result_equals_the_row_when_the_run_is_interactive(house: Stand, kind: str) -> None:
    """Python users may hold an AsyncResult; it says STARTED, RETRY and SUCCESS as the row does."""
    run_id = house.promise(f"{kind}.slow", "shown", "1.0")
    result = AsyncResult(run_id, app=house.app)
    house.until(lambda: result.state == "STARTED")
    assert result.get(timeout=30) == "shown"
    assert result.state == house.row(run_id).state == SUCCESS
    run_id = house.promise(f"{kind}.fail_once", "again")
    result = AsyncResult(run_id, app=house.app)
    assert result.get(timeout=30) == "again"
    assert house.outcomes(run_id) == ["retry", "success"]


def test_async_result_has_the_result_when_the_run_was_woken(house: Stand) -> None:
    """Whoever wakes a waiting run shows its result after the commit."""
    sleeper = house.promise("fork.wait", "sleep")
    house.until_state(sleeper, WAITING)
    result = AsyncResult(sleeper, app=house.app)
    assert result.state == "STARTED"
    waker = house.promise("wait.wake", sleeper)
    assert result.get(timeout=30) == {"woken_by": waker}
    assert house.row(sleeper).state == SUCCESS


def test_batch_is_executed_in_bundles_each_run_once(house: Stand) -> None:
    """A few messages carry many runs, and each is recorded by itself."""
    wanted = [Promise(task=f"{kind}.mark", args=["bulk"], priority=BULK, tenant=f"t{n % 3}")
              for n in range(60) for kind in ("fork", "wait")]  # fmt: skip
    with house.database.transaction() as session:
        ids = promise_all(session, wanted)
    house.until(lambda: {house.row(run_id).state for run_id in ids} == {SUCCESS}, why=house.states)
    done = [line[0] for line in house.effects() if line[1] == "bulk"]
    assert sorted(done) == sorted(ids)


def test_duplicate_messages_do_nothing_when_the_run_is_held_or_done(house: Stand) -> None:
    """Five copies of one message, while it is executed and after it: one effect."""
    for kind in ("fork", "wait"):
        run_id = house.promise(f"{kind}.slow", "dup", "0.5")
        for _ in range(5):
            house.app.send_task(f"{kind}.slow", args=([run_id],), task_id=run_id, queue=kind)
        house.until_state(run_id, SUCCESS)
        house.app.send_task(f"{kind}.slow", args=([run_id],), task_id=run_id, queue=kind)
        after = house.promise(f"{kind}.mark", "after")
        house.until_state(after, SUCCESS)
        assert [line[1] for line in house.effects(run_id)] == ["dup-begun", "dup-done"]


@pytest.mark.parametrize("kind", ["fork", "wait"])
def test_worker_goes_on_when_messages_are_garbage(house: Stand, kind: str) -> None:
    """Wrong ids, wrong shapes, other people's ids: dropped, said in the log, nothing executed."""
    later = house.promise(f"{kind}.slow", "victim", "0", priority=BULK, due_at=None, group_key="x")
    house.until_state(later, SUCCESS)
    victim = house.promise("wait.mark" if kind == "fork" else "fork.mark", "victim", coalesce=f"held-{kind}",
                           due_at=house.database.now().replace(year=2099))  # fmt: skip
    garbage: list[object] = [
        [], ["x"], [[]], [["x"]], [[1]], [{"a": 1}], [None], [[new_run_id()] * 40], [["a\x00" * 18]],
        [["\ud800" + "a" * 35]], [[victim]], [[victim], "more"], [[new_run_id()]],
    ]  # fmt: skip
    for args in garbage:
        house.app.send_task(f"{kind}.mark", args=args, queue=kind)
    house.app.send_task(f"{kind}.mark", kwargs={"run_ids": 5, "unknown": 1}, queue=kind)
    after = house.promise(f"{kind}.mark", "after-garbage")
    house.until_state(after, SUCCESS)
    assert house.row(victim).state == PENDING
    assert house.effects(victim) == []
    assert "ring_malformed" in house.logs
    assert all(node.process.poll() is None for node in house.nodes)


def test_no_prefork_main_process_has_the_database_open(house: Stand) -> None:
    """A child forked during a write would find SQLite locked for good."""
    run_id = house.promise("fork.mark", "opened")
    house.until_state(run_id, SUCCESS)
    main = house.nodes[0]
    assert "runs.db" not in _open_files(main.pid)
    assert any("runs.db" in _open_files(child) for child in main.children())
    assert "runs.db" in _open_files(house.nodes[1].pid)


def _open_files(pid: int) -> str:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return " ".join(found)


def test_every_process_says_that_it_is_present(house: Stand) -> None:
    """Children of a forking pool and the one process of threads, with queues and slots."""
    from conferral.reliable.status import live_workers

    with house.database.snapshot() as session:
        present = live_workers(session, house.database.now().replace(year=2000))
    counted = sorted((row.pool, row.slots, tuple(row.queues)) for row in present)
    assert counted == [("fork", 1, ("fork",)), ("fork", 1, ("fork",)), ("wait", 4, ("wait",))]
    assert {row.pid for row in present if row.pool == "fork"} == set(house.nodes[0].children())


def test_main_processes_touch_their_alive_files(house: Stand) -> None:
    """Under both pools, from the consumer's timer, every five seconds."""
    files = sorted((house.folder / "alive").glob("*.alive"))
    assert [file.name.partition("@")[0] for file in files] == ["fork", "wait"]
    before = {file: file.stat().st_mtime for file in files}
    house.until(lambda: all(file.stat().st_mtime > before[file] for file in files), seconds=8)


def test_message_carries_ids_and_nothing_else(house: Stand) -> None:
    """What Redis holds for a run: its id and the task's name."""
    run_id = house.promise("wait.mark", "secret-word", priority=BULK)
    with house.database.transaction() as session:
        from conferral.reliable import pauses

        pauses.pause(session, "queue", "fork")
    house.until_state(run_id, SUCCESS)
    held = house.promise("fork.mark", "secret-word")
    house.until(lambda: house.row(held).rung_at is None)  # refused, and not rung while paused
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert house.row(held).state == PENDING
    with house.server() as server:
        messages = b"".join(value for key in server.scan_iter() for value in _values(server, key))
    assert b"secret-word" not in messages
    with house.database.transaction() as session:
        pauses.resume(session, "queue", "fork")
    house.until_state(held, SUCCESS)


def _values(server: Any, key: bytes) -> list[bytes]:
    kind = server.type(key)
    if kind == b"list":
        return list(server.lrange(key, 0, -1))
    if kind == b"hash":
        return list(server.hvals(key))
    return [json.dumps(kind.decode()).encode()]
