# SPDX-License-Identifier: Apache-2.0
"""What the processes say: one thread reads every pipe, always; a slow terminal never stops a server.

Each process has its own file in `logs/`. On a terminal every line has the process's name in colour;
elsewhere it is one JSON object. A line that the terminal cannot take in time is counted and dropped
there, never in the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TextIO

# What a failed start shows, and what is kept to judge a death.
TAIL_LINES = 20
_KEPT_LINES = 60
_CHUNK_BYTES = 65_536
# A longer line is cut in pieces: one runaway line must not grow without end.
_LONGEST_LINE_BYTES = 16_384
# One file and one older one for each process: 40 MB at most.
_FILE_BYTES = 20_000_000
# A terminal that is this many lines behind loses some.
_WAITING_LINES = 5_000
_FAREWELL_SECONDS = 2.0
# The rest of a dead process's pipe is read in milliseconds, unless a stranger still holds its end.
_LAST_WORDS_SECONDS = 0.5
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94, 91)
_LEVEL_COLOURS = {"warning": 33, "error": 31, "critical": 31}
_HIDDEN_FIELDS = frozenset({"ts", "level", "event", "logger", "message", "process"})


class Output:
    """Reads what children write and shows it, without ever waiting for the terminal."""

    def __init__(self, logs: Path, terminal: TextIO, *, colour: bool) -> None:
        self._logs = logs
        self._terminal = terminal
        self._is_terminal = terminal.isatty()
        self._colour = colour and self._is_terminal
        self._sources: dict[str, _Source] = {}
        self._arrivals: deque[tuple[_Source, int]] = deque()
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING_LINES)
        self._dropped = 0
        self._wake_read, self._wake_write = os.pipe()
        self._reader = threading.Thread(target=self._read, name="output-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="output-writer", daemon=True)
        self._reader.start()
        self._writer.start()

    def attach(self, name: str, descriptor: int) -> None:
        """Read this pipe until its end; the descriptor now belongs to the reader."""
        source = self._sources.setdefault(name, _Source(name, self._logs / f"{name}.log"))
        source.kept.clear()
        source.is_read.clear()
        self._arrivals.append((source, descriptor))
        os.write(self._wake_write, b"a")

    def wait_until_read(self, name: str) -> None:
        """Wait until the last words of a process that has ended are here."""
        if name in self._sources:
            self._sources[name].is_read.wait(_LAST_WORDS_SECONDS)

    def tail(self, name: str) -> list[str]:
        """Return the last lines of one process."""
        source = self._sources.get(name)
        return list(source.kept)[-TAIL_LINES:] if source else []

    def say(self, text: str, *, level: str = "info") -> None:
        """Say something ourselves."""
        source = self._sources.setdefault("up", _Source("up", self._logs / "up.log"))
        line = json.dumps({"ts": _now(), "level": level, "event": text}, ensure_ascii=False)
        source.record(line)
        self._show(source, line)

    def close(self) -> None:
        """Show what has arrived, then end; a terminal that does not take it is left alone."""
        os.write(self._wake_write, b"q")
        self._reader.join(_FAREWELL_SECONDS)
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._writer.join(_FAREWELL_SECONDS)
        for source in self._sources.values():
            source.close()

    def _read(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._wake_read, selectors.EVENT_READ, None)
        is_ending = False
        while True:
            ready = selector.select(0 if is_ending else None)
            if is_ending and not ready:
                return
            for key, _ in ready:
                if key.data is None:
                    is_ending = b"q" in os.read(self._wake_read, _CHUNK_BYTES) or is_ending
                    while self._arrivals:
                        source, descriptor = self._arrivals.popleft()
                        selector.register(descriptor, selectors.EVENT_READ, source)
                elif not self._take(key.fd, key.data):
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    key.data.is_read.set()

    def _take(self, descriptor: int, source: _Source) -> bool:
        chunk = os.read(descriptor, _CHUNK_BYTES)
        for line in source.split(chunk):
            source.record(line)
            self._show(source, line)
        return bool(chunk)

    def _show(self, source: _Source, line: str) -> None:
        if not line:
            return
        try:
            self._lines.put_nowait(self._dressed(source.name, line))
        except queue.Full:
            self._dropped += 1

    def _dressed(self, name: str, line: str) -> str:
        fields = _fields(line)
        if not self._is_terminal:
            return json.dumps(
                {"process": name, **(fields or {"ts": _now(), "event": line})},
                ensure_ascii=False,
                default=str,
            )
        text, level = (line, "") if fields is None else _readable(fields)
        if not self._colour:
            return f"{name:<8}| {text}"
        colour = _COLOURS[list(self._sources).index(name) % len(_COLOURS)]
        painted = f"\x1b[{_LEVEL_COLOURS[level]}m{text}\x1b[0m" if level in _LEVEL_COLOURS else text
        return f"\x1b[{colour}m{name:<8}|\x1b[0m {painted}"

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            # The terminal may have been closed; the files go on.
            with contextlib.suppress(OSError, ValueError):
                if dropped:
                    self._terminal.write(f"({dropped} lines not shown here; they are in {self._logs})\n")
                self._terminal.write(line + "\n")
                self._terminal.flush()


class _Source:
    """One process's lines: the unfinished one, the last ones, the file."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self.is_read = threading.Event()
        self._path = path
        self._rest = b""
        self._file: BinaryIO | None = None

    def split(self, chunk: bytes) -> list[str]:
        """Return the lines that are complete now; at the end also the unfinished one."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST_LINE_BYTES or (not chunk and self._rest):
            whole.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace").rstrip("\r") for line in whole]

    def record(self, line: str) -> None:
        """Remember a line and write it to the file; a full disk must not stop the processes."""
        self.kept.append(line)
        with contextlib.suppress(OSError):
            if self._file is not None and self._file.tell() > _FILE_BYTES:
                self._file.close()
                self._file = None
                self._path.replace(self._path.with_suffix(".1.log"))
            if self._file is None:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                self._file = os.fdopen(descriptor, "ab", buffering=0)
            self._file.write(line.encode(errors="replace") + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _fields(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _readable(fields: dict[str, object]) -> tuple[str, str]:
    event = str(fields.get("event") or fields.get("message") or "")
    rest = " ".join(f"{name}={value}" for name, value in fields.items() if name not in _HIDDEN_FIELDS)
    return (f"{event}  {rest}" if rest else event), str(fields.get("level", "")).lower()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
