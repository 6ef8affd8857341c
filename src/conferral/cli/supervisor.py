# SPDX-License-Identifier: Apache-2.0
"""Starts processes in order, keeps them alive, stops them in order; knows nothing of credentials.

One thread, one loop, woken by SIGCHLD. It never opens the database, never blocks on a terminal and never
gives up on a running system. What it knows stands in `run/supervisor.json` for `conferral status`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from conferral.cli.child import DONE, FAILING, READY, STARTING, STOPPED, WAITING, Child, Spec
from conferral.cli.output import Output
from conferral.cli.process_identity import Identity, identify

READY_WITHIN_SECONDS = 30.0
# How long the loop sleeps when nothing happens; a death wakes it at once.
_TICK_SECONDS = 0.25
_STARTING_TICK_SECONDS = 0.05
_STALE_CHECK_SECONDS = 5.0
# What a killed supervisor left gets this long after SIGTERM, then SIGKILL.
LEFTOVER_SECONDS = 10.0
STATUS_FILE = "supervisor.json"
_RUNNING, _STOPPING = "running", "stopping"
# The exit status of an examiner that found its suspect guilty.
GUILTY = 3
# The second request to stop means: at once.
_NOW = 2


Suspects = Callable[[float], Iterable[str]]


class StartFailedError(Exception):
    """An essential process did not start; the message holds its last lines."""


class InterruptedStartError(Exception):
    """Somebody asked to stop before everything was up."""


@dataclass(frozen=True)
class Stage:
    """Processes that start, or stop, together.

    Attributes:
        patience: when stopping, seconds after which the next stage is told, too.
        shares_deadline: whether its patience with signals counts from the beginning of the whole stop,
            so that slow stages do not add up; otherwise from its own SIGTERM.
    """

    names: tuple[str, ...]
    patience: float = 60.0
    shares_deadline: bool = True


class Supervisor:
    """Runs the processes of one data directory."""

    def __init__(self, run_dir: Path, output: Output) -> None:
        self._path = run_dir / STATUS_FILE
        self._output = output
        self._children: dict[str, Child] = {}
        self._suspects: Suspects | None = None
        self._examined: dict[str, Child] = {}
        self._asked_to_stop = 0
        self._state = STARTING
        self._stale_checked_at = 0.0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)

    def install_signals(self) -> None:
        """Take SIGINT, SIGTERM, SIGHUP and SIGCHLD; call it from the main thread."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def start_all(self, specs: Sequence[Spec]) -> None:
        """Start some processes at once and wait until all are ready.

        Raises:
            StartFailedError: an essential one ended, or was not ready in 30 s.
            InterruptedStartError: a signal came first.
        """
        now = time.monotonic()
        started = [Child(spec, self._output) for spec in specs]
        for child in started:
            self._children[child.spec.name] = child
            child.start(now)
        self._save()
        deadline = now + READY_WITHIN_SECONDS
        while pending := [child for child in started if not _has_arrived(child)]:
            self._tick(_STARTING_TICK_SECONDS)
            if self._asked_to_stop:
                raise InterruptedStartError
            self._judge_start(pending, is_late=time.monotonic() > deadline)
            if time.monotonic() > deadline:
                return

    def run(self, suspects: Suspects | None = None) -> None:
        """Keep everything alive until a signal asks to stop.

        Args:
            suspects: asked every few seconds for the names of processes that may have stopped
                working; each is examined before it is restarted.
        """
        self._state, self._suspects = _RUNNING, suspects
        self._save()
        while not self._asked_to_stop:
            self._tick(_TICK_SECONDS)

    def stop_all(self, stages: Sequence[Stage]) -> None:
        """Stop in this order; a second Ctrl-C ends everything at once."""
        self._state = _STOPPING
        self._save()
        began = time.monotonic()
        if any(child.is_running for child in self._children.values()):
            self._output.say("stopping; Ctrl-C again ends everything at once")
        for examiner in self._examined.values():
            examiner.kill()
        named = {name for stage in stages for name in stage.names}
        rest = Stage(tuple(name for name in self._children if name not in named))
        for stage in (rest, *stages):
            children = [self._children[name] for name in stage.names if name in self._children]
            for child in children:
                child.stop(time.monotonic(), deadline_from=began if stage.shares_deadline else None)
            until = time.monotonic() + stage.patience
            while any(child.is_running for child in children) and time.monotonic() < until:
                self._press()
        while any(child.is_running for child in self._children.values()):
            self._press()
        self._state = STOPPED
        self._save()
        self._output.say(f"stopped after {time.monotonic() - began:.1f} s")

    def reply_of(self, name: str) -> bytes:
        """Return what a one-shot process wrote to its standard output."""
        return self._children[name].reply

    def states(self) -> dict[str, str]:
        """Return the state of every process that is meant to run on."""
        return {name: child.state for name, child in self._children.items() if not child.spec.is_one_shot}

    def _judge_start(self, pending: Sequence[Child], *, is_late: bool) -> None:
        for child in pending:
            has_died = not child.is_running and child.last_exit not in {None, 0}
            if has_died and child.restarts == 0 and self._mend(child):
                continue
            if child.spec.is_essential and (is_late or has_died):
                raise StartFailedError(self._obituary(child))
            if is_late or has_died:
                self._output.say(self._obituary(child), level="warning")

    def _tick(self, seconds: float) -> None:
        with contextlib.suppress(InterruptedError):
            select.select([self._wake_read], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        now = time.monotonic()
        changed = [child for child in self._children.values() if self._advance(child, now)]
        if now - self._stale_checked_at > _STALE_CHECK_SECONDS:
            self._stale_checked_at = now
            changed.extend(self._restart_stale(now))
            self._examine_suspects(now)
        changed.extend(self._restart_guilty(now))
        if changed:
            self._save()

    def _advance(self, child: Child, now: float) -> bool:
        """Move one child on; whether anything about it changed."""
        child.press(now)
        if child.has_ended(now):
            self._report_end(child, now)
            return True
        may_start = child.state in {WAITING, FAILING} and self._state != _STOPPING
        if may_start and not child.is_running and now >= child.due_at:
            self._mend(child)
            child.restarts += 1
            child.start(now)
            return True
        if child.notice_ready(now):
            self._output.say(f"{child.spec.name} is ready after {child.ready_after:.1f} s")
            return True
        return False

    def _report_end(self, child: Child, now: float) -> None:
        if self._state == _STOPPING:
            return
        if child.state == DONE:
            self._output.say(f"{child.spec.name} is done after {now - child.started_at:.1f} s")
            return
        pause = max(0.0, child.due_at - now)
        again = f"; it starts again in {pause:.0f} s" if child.state != STOPPED else ""
        word = "keeps failing: it" if child.state == FAILING else "ended unexpectedly: it"
        self._output.say(f"{child.spec.name} {word} {_exit_text(child.last_exit)}{again}", level="warning")

    def _restart_stale(self, now: float) -> Iterator[Child]:
        for child in self._children.values():
            if child.is_stale(now, time.time()):
                self._output.say(f"{child.spec.name} gives no sign of life; restarting it", level="error")
                child.restart(now)
                yield child

    def _examine_suspects(self, now: float) -> None:
        """Start the examiner of every process that is suspected; the examination takes a second."""
        for name in self._suspects(now) if self._suspects and self._state == _RUNNING else ():
            child = self._children.get(name)
            if (
                child is not None
                and child.state == READY
                and child.spec.examiner
                and name not in self._examined
            ):
                self._examined[name] = Child(child.spec.examiner, self._output)
                self._examined[name].start(now)

    def _restart_guilty(self, now: float) -> Iterator[Child]:
        for name, examiner in list(self._examined.items()):
            if now - examiner.started_at > READY_WITHIN_SECONDS:
                examiner.kill()
            if examiner.has_ended(now):
                del self._examined[name]
                if examiner.last_exit == GUILTY:
                    self._output.say(
                        f"worker_deaf: {name} lives and does not listen; restarting it", level="error"
                    )
                    self._children[name].restart(now)
                    yield self._children[name]

    def _mend(self, child: Child) -> bool:
        """Let a child's own repair look at its last words; True when it did something: start at once."""
        if child.spec.repair is None or child.is_running:
            return False
        done = child.spec.repair(self._output.tail(child.spec.name))
        if done is None:
            return False
        self._output.say(done, level="warning")
        child.due_at = 0.0
        return True

    def _press(self) -> None:
        if self._asked_to_stop >= _NOW:
            for child in self._children.values():
                child.kill()
        self._tick(_STARTING_TICK_SECONDS)

    def _on_stop_signal(self, number: int, _frame: FrameType | None) -> None:
        # A second Ctrl-C means now; a second SIGTERM is an impatient init system, and has SIGKILL itself.
        if number == signal.SIGINT or not self._asked_to_stop:
            self._asked_to_stop += 1

    def _obituary(self, child: Child) -> str:
        how = "was not ready in 30 s" if child.is_running else _exit_text(child.last_exit)
        lines = "\n".join(f"    {line}" for line in self._output.tail(child.spec.name))
        return f"{child.spec.name} {how}; its last lines:\n{lines or '    (none)'}"

    def _save(self) -> None:
        """Write the status whole or not at all; a full disk must not stop the processes."""
        me = identify(os.getpid())
        status = {
            "state": self._state,
            "pid": os.getpid(),
            "started": me.started if me else "",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "processes": [_row(child) for child in self._children.values()],
        }
        with contextlib.suppress(OSError):
            draft = self._path.with_suffix(".new")
            draft.write_text(json.dumps(status, indent=1))
            draft.replace(self._path)


def end_leftovers(run_dir: Path, output: Output) -> int:
    """End what a killed supervisor left running, by pid and start time; return how many."""
    try:
        status = json.loads((run_dir / STATUS_FILE).read_text())
        rows = [row for row in status["processes"] if row.get("pid")]
        left = [Identity(int(row["pid"]), str(row["started"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    left = [item for item in left if item.signal(signal.SIGTERM)]
    if left:
        output.say(f"ending {len(left)} processes that an earlier run left behind", level="warning")
    deadline = time.monotonic() + LEFTOVER_SECONDS
    while any(item.is_alive() for item in left) and time.monotonic() < deadline:
        time.sleep(_STARTING_TICK_SECONDS)
    for item in left:
        item.signal_group(signal.SIGKILL)
    return len(left)


def _has_arrived(child: Child) -> bool:
    """Whether the start need not wait for it any longer: it is well, or nothing depends on it."""
    if not child.spec.is_essential and child.last_exit is not None:
        return True
    return child.state in {READY, DONE}


def _row(child: Child) -> dict[str, Any]:
    return {
        "name": child.spec.name,
        "state": child.state,
        "pid": child.identity.pid if child.identity else None,
        "started": child.identity.started if child.identity else "",
        "restarts": child.restarts,
        "last_exit": child.last_exit,
        "ready_after_seconds": None if child.ready_after is None else round(child.ready_after, 2),
    }


def _exit_text(status: int | None) -> str:
    if status is None:
        return "has not started"
    if status < 0:
        try:
            return f"was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"was ended by signal {-status}"
    return f"ended with status {status}"
