# SPDX-License-Identifier: Apache-2.0
"""One process under the supervisor: how it is started, judged and stopped.

SIGTERM goes to the main process, never to its group: a group-wide SIGTERM kills the pool's children,
and Celery then acknowledges a task that was never finished. SIGKILL does go to the group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conferral.cli import death_signal
from conferral.cli.output import Output
from conferral.cli.process_identity import Identity, identify

# Restarts wait 1 s, doubling to 30 s for what does not stay; what worked for longer than it is to wait has
# not failed, it was killed: it waits 1 s again. A minute of life makes the past forgotten.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_AFTER_SECONDS = 60.0
# This many deaths within a minute are shown as failing; nothing is ever given up.
FAILING_DEATHS = 5
FAILING_WITHIN_SECONDS = 60.0
# A sign of life comes every 5 s; a main process that gave none for a minute hangs.
STALE_AFTER_SECONDS = 60.0

STARTING, READY, WAITING, FAILING, STOPPED = "starting", "ready", "waiting", "failing", "stopped"
# A one-shot that did its work.
DONE = "done"


@dataclass(frozen=True)
class Patience:
    """When a stopping process gets which signal, in seconds after its SIGTERM."""

    kill_after: float
    quit_after: float | None = None


@dataclass(frozen=True)
class Spec:
    """What to run, and how to know that it is well.

    Attributes:
        is_ready: asked repeatedly after the start; cheap, answers within a second.
        alive_file: touched by the process every few seconds, when it does that.
        is_essential: the whole start fails when this one cannot start.
        is_one_shot: ready when it has ended with status 0.
        keeps_reply: its standard output is an answer of less than 64 KiB for us, not a log.
        repair: given the last lines of a process that died, mends what it can and says what it did.
        may_judge: False while a missing sign of life has another cause, such as an absent broker.
        examiner: a one-shot that tells by its exit status whether a suspect really has to be restarted.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    patience: Patience
    is_ready: Callable[[], bool] | None = None
    alive_file: Path | None = None
    is_essential: bool = False
    is_one_shot: bool = False
    keeps_reply: bool = False
    repair: Callable[[Sequence[str]], str | None] | None = None
    may_judge: Callable[[], bool] | None = None
    examiner: Spec | None = None


class Child:
    """A process that is started again whenever it ends."""

    def __init__(self, spec: Spec, output: Output) -> None:
        self.spec = spec
        self.state = STOPPED
        self.identity: Identity | None = None
        self.started_at = 0.0
        self.ready_after: float | None = None
        self.restarts = 0
        self.last_exit: int | None = None
        self.due_at = 0.0
        self.reply = b""
        self._deaths: deque[float] = deque(maxlen=FAILING_DEATHS)
        self._pause = FIRST_PAUSE_SECONDS
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._signalled: set[int] = set()
        self._stopping_since: float | None = None
        self._comes_back = False

    def start(self, now: float) -> None:
        """Start the process; called from the main thread only, for the kernel's death signal."""
        if self.spec.alive_file is not None:
            self.spec.alive_file.unlink(missing_ok=True)
        read, write = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- commands are built by us
                _with_death_signal(self.spec.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.spec.keeps_reply else write,
                stderr=write,
                env=dict(self.spec.environ),
                start_new_session=True,
            )
        finally:
            os.close(write)
            self._output.attach(self.spec.name, read)
        self.identity = identify(self._process.pid)
        self.state, self.started_at, self.ready_after = STARTING, now, None
        self._signalled, self._stopping_since, self._comes_back = set(), None, False

    @property
    def is_running(self) -> bool:
        """Whether the main process exists and has not been reaped."""
        return self._process is not None

    def has_ended(self, now: float) -> bool:
        """Notice the end of the process: sweep its group, plan the restart. True once per death."""
        if self._process is None or not _is_dead(self._process):
            return False
        # Before it is reaped its number cannot be reused, so the group is certainly its own.
        _kill_group(self._process.pid)
        if self._process.stdout is not None:
            self.reply = self._process.stdout.read()
            self._process.stdout.close()
        self.last_exit = self._process.wait()
        self._output.wait_until_read(self.spec.name)
        self._process, self.identity = None, None
        if self.ready_after is not None:
            if now - self.started_at - self.ready_after >= self._pause:
                self._pause = FIRST_PAUSE_SECONDS
            if now - self.started_at >= HEALTHY_AFTER_SECONDS:
                self._pause = FIRST_PAUSE_SECONDS
                self._deaths.clear()
        self._deaths.append(now)
        self.due_at = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        if self.spec.is_one_shot and self.last_exit == 0:
            self.state = DONE
        elif self.spec.is_one_shot or (self._stopping_since is not None and not self._comes_back):
            self.state = STOPPED
        else:
            self.state = FAILING if self._is_failing(now) else WAITING
        return True

    def notice_ready(self, now: float) -> bool:
        """Ask whether it is ready; True once, when it becomes so."""
        if (
            self.state != STARTING
            or self.spec.is_one_shot
            or (self.spec.is_ready is not None and not self.spec.is_ready())
        ):
            return False
        self.state, self.ready_after = READY, now - self.started_at
        return True

    def is_stale(self, now: float, wall_clock: float) -> bool:
        """Whether a process that gives signs of life has given none for too long."""
        path = self.spec.alive_file
        if path is None or not self.is_running or now - self.started_at < STALE_AFTER_SECONDS:
            return False
        try:
            age = wall_clock - path.stat().st_mtime
        except OSError:
            age = now - self.started_at
        return age > STALE_AFTER_SECONDS and (self.spec.may_judge is None or self.spec.may_judge())

    def stop(self, now: float, *, deadline_from: float | None = None) -> None:
        """Ask it to end; its patience counts from `deadline_from` when a common stop began earlier."""
        self._comes_back = False
        if self._process is None:
            self.state = DONE if self.state == DONE else STOPPED
        elif self._stopping_since is None:
            self._stopping_since = now if deadline_from is None else deadline_from
            self._signal_once(signal.SIGTERM)

    def press(self, now: float) -> None:
        """Go on to the next signal when the last one has had its time."""
        if self._process is None or self._stopping_since is None:
            return
        waited, patience = now - self._stopping_since, self.spec.patience
        if waited >= patience.kill_after:
            self.kill()
        elif patience.quit_after is not None and waited >= patience.quit_after:
            self._signal_once(signal.SIGQUIT)

    def restart(self, now: float) -> None:
        """Stop a process that hangs; it is started again like any other that ended."""
        self.stop(now)
        self._comes_back = True

    def kill(self) -> None:
        """End the whole group at once."""
        if self._process is not None and not _is_dead(self._process):
            _kill_group(self._process.pid)

    def _signal_once(self, number: int) -> None:
        if self._process is not None and number not in self._signalled and not _is_dead(self._process):
            self._signalled.add(number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _is_failing(self, now: float) -> bool:
        return len(self._deaths) == FAILING_DEATHS and now - self._deaths[0] <= FAILING_WITHIN_SECONDS


def _with_death_signal(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", str(Path(death_signal.__file__)), str(os.getpid()), *command]


def _is_dead(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, without reaping it where the system can tell."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return found is not None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
