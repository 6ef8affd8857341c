# SPDX-License-Identifier: Apache-2.0
"""The peers of a house as programs of their own: the mail relay and the webhook receiver, with histories.

A peer keeps its port and its history while its faults change: `peer.use("dot=drop@0.03")` ends the
program and starts it again. What it saw stands in a file, one JSON line an effect, written before the
sender heard of it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import fake_smtp, fake_webhook

STOP_SECONDS = 15.0


@dataclass
class Peer:
    """One fake as a program."""

    program: Path
    history_file: Path
    port: int = 0
    options: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    seed: int = 0
    process: subprocess.Popen[str] | None = field(default=None)

    def start(self) -> None:
        """Start it and learn its port."""
        self.history_file.touch()
        words = [sys.executable, str(self.program), "--port", str(self.port), "--seed", str(self.seed)]
        words += ["--history", str(self.history_file), *self.options]
        for fault in self.faults:
            words += ["--fault", fault]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert "127.0.0.1:" in said, f"{self.program.name} did not start"
        self.port = int(said.rsplit("127.0.0.1:", 1)[1].split("/")[0])

    def stop(self) -> None:
        """End it; its port then refuses connections."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def use(self, *faults: str, options: tuple[str, ...] | None = None) -> None:
        """Go on with other faults (none: a healthy peer) on the same port, with the same history."""
        self.stop()
        self.faults = faults
        if options is not None:
            self.options = options
        self.start()

    def seen(self) -> list[dict[str, Any]]:
        """Return everything it saw, in order; a line that is being written is not there yet."""
        text = self.history_file.read_text(encoding="utf-8")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def mail_relay(folder: Path, seed: int) -> Peer:
    """Return a relay that was not started yet."""
    return Peer(Path(str(fake_smtp.__file__)), folder / "mails.jsonl", seed=seed)


def webhook_receiver(folder: Path, seed: int) -> Peer:
    """Return a receiver that was not started yet."""
    return Peer(Path(str(fake_webhook.__file__)), folder / "hooks.jsonl", seed=seed)
