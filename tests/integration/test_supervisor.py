# SPDX-License-Identifier: Apache-2.0
"""The supervisor with real small processes: start, death, restart, stop, leftovers."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conferral.cli import process_identity
from conferral.cli.child import FAILING, READY, Child, Patience, Spec
from conferral.cli.output import Output
from conferral.cli.supervisor import Stage, StartFailedError, Supervisor, end_leftovers

SOON = 15.0
OBEDIENT = (
    "import signal,sys,time;signal.signal(15,lambda *_:sys.exit(0));print('up',flush=True);time.sleep(60)"
)
DEAF = "import signal,sys,time;signal.signal(15,signal.SIG_IGN);print('up',flush=True);time.sleep(60)"


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    """Yield what reads the children of a test."""
    reader = Output(tmp_path, io.StringIO(), colour=False)
    yield reader
    reader.close()


def python(name: str, code: str, output: Output, **more: object) -> Spec:
    """Describe a child that runs this code and is ready when it has said `up`."""
    options: dict[str, object] = {
        "patience": Patience(kill_after=5),
        "is_ready": lambda: "up" in output.tail(name),
    }
    return Spec(
        name=name, command=[sys.executable, "-c", code], environ=dict(os.environ), **{**options, **more}
    )  # type: ignore[arg-type]


def until(condition: Callable[[], object], boss: Supervisor | None = None) -> None:
    """Wait until something holds, moving the supervisor on meanwhile."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        if boss is None:
            time.sleep(0.02)
        else:
            boss._tick(0.02)


def status(folder: Path) -> dict[str, dict[str, object]]:
    """Return the written status by process name."""
    found = json.loads((folder / "supervisor.json").read_text())
    return {row["name"]: row for row in found["processes"]}


def test_a_process_that_dies_is_started_again(tmp_path: Path, output: Output) -> None:
    """No death of a child is final, and the status says how often it happened."""
    boss = Supervisor(tmp_path, output)
    boss.start_all([python("child", OBEDIENT, output)])
    first = status(tmp_path)["child"]
    assert first["state"] == READY
    os.kill(int(str(first["pid"])), signal.SIGKILL)
    until(lambda: status(tmp_path)["child"]["restarts"] == 1, boss)
    until(lambda: status(tmp_path)["child"]["state"] == READY, boss)
    assert status(tmp_path)["child"]["last_exit"] == -signal.SIGKILL
    boss.stop_all([])


def test_a_process_that_keeps_dying_is_shown_as_failing(output: Output) -> None:
    """Five deaths in a minute are a word an operator can search for; restarts go on, ever slower."""
    child = Child(python("child", "raise SystemExit(3)", output), output)
    now, pauses = 0.0, []
    for _ in range(7):
        child.start(now)
        until(lambda at=now: child.has_ended(at))
        pauses.append(child.due_at - now)
        now = child.due_at
    assert child.state == FAILING
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_the_pause_is_short_again_when_a_process_was_well_for_a_minute(output: Output) -> None:
    """An old crash does not slow down a new start."""
    child = Child(python("child", OBEDIENT, output), output)
    child._pause = 30.0
    child.start(0.0)
    until(lambda: child.notice_ready(1.0))
    child.kill()
    until(lambda: child.has_ended(61.0))
    assert child.due_at == 62.0


def test_the_start_fails_with_the_last_lines_when_an_essential_process_dies(
    tmp_path: Path, output: Output
) -> None:
    """Whoever reads the terminal sees why, without looking for a log file."""
    boss = Supervisor(tmp_path, output)
    code = "import sys;print('first');print('the reason',file=sys.stderr);sys.exit(7)"
    with pytest.raises(
        StartFailedError, match=r"web ended with status 7; its last lines:\n.*first\n.*the reason"
    ):
        boss.start_all([python("web", code, output, is_essential=True)])
    boss.stop_all([])


def test_the_start_goes_on_when_a_minor_process_dies(tmp_path: Path, output: Output) -> None:
    """A broken Flower must not keep credentials from being issued."""
    boss = Supervisor(tmp_path, output)
    boss.start_all([python("flower", "raise SystemExit(1)", output), python("web", OBEDIENT, output)])
    assert boss.states()["web"] == READY
    boss.stop_all([])


def test_a_one_shot_is_awaited_and_its_reply_is_kept(tmp_path: Path, output: Output) -> None:
    """Migrations end before anything opens the database."""
    boss = Supervisor(tmp_path, output)
    code = "import time;time.sleep(0.2);print('answer')"
    spec = python("demo", code, output, is_one_shot=True, keeps_reply=True, is_ready=None)
    boss.start_all([spec])
    assert boss.reply_of("demo") == b"answer\n"
    boss.stop_all([])


def test_processes_stop_in_order_and_a_deaf_one_is_killed(tmp_path: Path, output: Output) -> None:
    """Nobody posts work to a Redis that has already gone, and nobody is waited for without end."""
    boss = Supervisor(tmp_path, output)
    slow = (
        "import signal,sys,time;signal.signal(15,lambda *_:(print(f'end {time.monotonic()}'),sys.exit(0)));"
        "print('up',flush=True);time.sleep(60)"
    )
    boss.start_all(
        [
            python("redis", slow, output),
            python("hp", DEAF, output, patience=Patience(quit_after=0.5, kill_after=5)),
            python("web", slow, output),
        ]
    )
    boss.stop_all([Stage(("web",)), Stage(("hp",)), Stage(("redis",), shares_deadline=False)])
    rows = status(tmp_path)
    assert [rows[name]["last_exit"] for name in ("web", "hp", "redis")] == [0, -signal.SIGQUIT, 0]
    ended = [float(output.tail(name)[-1].split()[1]) for name in ("web", "redis")]
    assert ended[1] - ended[0] >= 0.4


def test_only_the_main_process_gets_sigterm(tmp_path: Path, output: Output) -> None:
    """A pool's children finish their task; a group-wide SIGTERM would lose it."""
    code = (
        "import os,signal,sys,time\n"
        "child=os.fork()\n"
        "if child==0:\n"
        " signal.signal(15,lambda *_:print('child got it',flush=True))\n"
        " print('up',flush=True);time.sleep(1);os._exit(0)\n"
        "def end(*_):\n"
        " os.waitpid(child,0);print('main waited',flush=True);sys.exit(0)\n"
        "signal.signal(15,end);time.sleep(60)\n"
    )
    boss = Supervisor(tmp_path, output)
    boss.start_all([python("hp", code, output)])
    boss.stop_all([])
    assert output.tail("hp") == ["up", "main waited"]


def test_orphans_of_a_dead_main_process_are_swept(tmp_path: Path, output: Output) -> None:
    """A new pool never works beside the children of a dead one."""
    code = "import os,time\nos.write(1, b'%d\\n' % os.fork())\nos.write(1, b'up\\n')\ntime.sleep(60)"
    boss = Supervisor(tmp_path, output)
    boss.start_all([python("hp", code, output)])
    until(lambda: len(output.tail("hp")) >= 4)
    orphan = next(int(line) for line in output.tail("hp") if line.isdigit() and line != "0")
    os.kill(int(str(status(tmp_path)["hp"]["pid"])), signal.SIGKILL)
    until(lambda: status(tmp_path)["hp"]["restarts"] == 1, boss)
    until(lambda: process_identity.start_time(orphan) == "")
    boss.stop_all([])


def test_a_process_without_sign_of_life_is_restarted(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A main process that hangs is as bad as one that died; an absent broker is no reason."""
    path, broker = tmp_path / "hp.alive", []
    code = f"import pathlib,time;pathlib.Path({str(path)!r}).touch();time.sleep(60)"
    spec = python("hp", code, output, alive_file=path, is_ready=path.exists, may_judge=lambda: bool(broker))
    boss = Supervisor(tmp_path, output)
    boss.start_all([spec])
    os.utime(path, (1, 1))
    child = boss._children["hp"]
    assert not child.is_stale(time.monotonic(), time.time()), "it has only just started"
    child.started_at -= 61
    assert not child.is_stale(time.monotonic(), time.time()), "its broker is away"
    broker.append("back")
    boss._stale_checked_at = 0.0
    monkeypatch.setattr("conferral.cli.supervisor._STALE_CHECK_SECONDS", 0.0)
    until(lambda: status(tmp_path)["hp"]["restarts"] == 1, boss)
    until(lambda: status(tmp_path)["hp"]["state"] == READY, boss)
    boss.stop_all([])


def test_leftovers_of_a_killed_supervisor_are_ended_by_pid_and_start_time(
    tmp_path: Path, output: Output
) -> None:
    """A pid that now belongs to somebody else is left alone."""
    ours = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.DEVNULL, start_new_session=True)
    foreign = subprocess.Popen(
        [sys.executable, "-c", OBEDIENT], stdout=subprocess.DEVNULL, start_new_session=True
    )
    reaper = threading.Thread(target=ours.wait, daemon=True)
    reaper.start()
    rows = [
        {"name": "hp", "pid": ours.pid, "started": process_identity.start_time(ours.pid)},
        {"name": "web", "pid": foreign.pid, "started": "12"},
    ]
    (tmp_path / "supervisor.json").write_text(json.dumps({"processes": rows}))
    try:
        assert end_leftovers(tmp_path, output) == 1
        reaper.join(SOON)
        assert foreign.poll() is None
        assert ours.returncode in {-signal.SIGKILL, -signal.SIGTERM}
    finally:
        foreign.kill()
        foreign.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """`kill -9` of the supervisor leaves no process behind."""
    code = f"""
import io, os, pathlib, sys
from conferral.cli.child import Patience, Spec
from conferral.cli.output import Output
from conferral.cli.supervisor import Supervisor
folder = pathlib.Path({str(tmp_path)!r})
output = Output(folder, sys.stderr, colour=False)
boss = Supervisor(folder, output)
command = [sys.executable, "-c", "import time;time.sleep(60)"]
boss.start_all([Spec("child", command, dict(os.environ), Patience(5))])
boss.run()
"""
    killed = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    until(lambda: (tmp_path / "supervisor.json").exists() and status(tmp_path)["child"]["state"] == READY)
    child = status(tmp_path)["child"]
    identity = process_identity.Identity(int(str(child["pid"])), str(child["started"]))
    assert identity.is_alive()
    killed.kill()
    killed.wait()
    until(lambda: not identity.is_alive())


def test_a_terminal_that_takes_nothing_stops_no_process(tmp_path: Path) -> None:
    """The reader goes on when nobody reads the terminal; the file has every line."""

    class Stuck(io.StringIO):
        def write(self, _text: str) -> int:
            threading.Event().wait(SOON)
            return 0

    output = Output(tmp_path, Stuck(), colour=False)
    boss = Supervisor(tmp_path, output)
    code = "for n in range(20_000): print(n, 'x' * 100)\nprint('up', flush=True)\nimport time; time.sleep(60)"
    boss.start_all([python("chatty", code, output)])
    until(lambda: (tmp_path / "chatty.log").read_text().count("\n") == 20_001)
    boss.stop_all([])
