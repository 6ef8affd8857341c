# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy that spoils what passes: delay, refuse, cut, black hole, or forward and lose the answer.

It stands between the product and PostgreSQL or Redis. Everything happens in one thread of the test;
the settings may be changed at any moment and hold for connections that exist, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65_536
START_SECONDS = 10.0


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    loses_answer: bool = False

    def abort(self) -> None:
        """Close both sides with RST, as a cut line ends for those who go on talking."""
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass
class Proxy:
    """Forwards `127.0.0.1:port` to another port; a context manager.

    Attributes:
        delay_seconds: how long each piece waits, in both directions.
        lost: how many answers were lost so far.
    """

    to_port: int
    delay_seconds: float = 0.0
    port: int = 0
    lost: int = 0
    _refuses: bool = False
    _swallows: bool = False
    _losing: list[bytes] = field(default_factory=list)
    _connections: set[_Connection] = field(default_factory=set)
    _started: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)
        self._thread.start()
        assert self._started.wait(START_SECONDS), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(START_SECONDS)

    def url(self, target: str) -> str:
        """Return the URL of a server with this proxy's address in it."""
        parts = urlsplit(target)
        who = parts.netloc.rpartition("@")[0]
        netloc = f"{who}@127.0.0.1:{self.port}" if who else f"127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=netloc))

    def heal(self) -> None:
        """Forward everything again; connections in a black hole are cut."""
        was_black = self._swallows
        self.delay_seconds, self._refuses, self._swallows = 0.0, False, False
        self._losing.clear()
        if was_black:
            self.cut()

    def refuse(self) -> None:
        """Cut every connection and let nobody in: a connect is reset at once."""
        self._refuses = True
        self.cut()

    def black_hole(self) -> None:
        """Swallow everything, in both directions, without a sign; new connections are taken in."""
        self._swallows = True

    def cut(self) -> None:
        """Cut the connections there are; new ones are forwarded."""

        def act() -> None:
            for one in list(self._connections):
                one.abort()
            done.set()

        done = threading.Event()
        self._loop.call_soon_threadsafe(act)
        done.wait(START_SECONDS)

    def lose_answer(self, to: bytes, times: int = 1) -> None:
        """Forward the next requests that contain these bytes, and cut when their answer comes.

        `lose_answer(b"COMMIT")` is a commit whose client never learns that it happened.
        """
        self._losing.extend([to] * times)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = int(server.sockets[0].getsockname()[1])
        self._started.set()
        await self._ended.wait()
        server.close()
        for one in list(self._connections):
            one.abort()
        current = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not current]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.transport.abort()
            return
        one = _Connection(writer, to_server)
        self._connections.add(one)
        try:
            up = asyncio.ensure_future(self._pump(reader, to_server, one, is_request=True))
            down = asyncio.ensure_future(self._pump(from_server, writer, one, is_request=False))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            self._connections.discard(one)
            one.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        one: _Connection,
        *,
        is_request: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if self._swallows:
                    continue
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if is_request:
                    one.loses_answer = one.loses_answer or self._takes(chunk)
                elif one.loses_answer:
                    self.lost += 1
                    return
                writer.write(chunk)
                await writer.drain()
            if self._swallows:
                await asyncio.Event().wait()
            # What was written to the other side is still on its way.
            writer.write_eof()
            await asyncio.sleep(0.05)

    def _takes(self, chunk: bytes) -> bool:
        for wanted in self._losing:
            if wanted in chunk:
                self._losing.remove(wanted)
                return True
        return False
