# SPDX-License-Identifier: Apache-2.0
"""The harness itself: every kind of harm that it is to find is planted once, and found."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.chaos_client import Accepted
from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_points import Armory
from support.chaos_proxy import Proxy

Line = dict[str, Any]


class Rewritten:
    """A peer whose history was changed."""

    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines

    def seen(self) -> list[Line]:
        """Return the changed history."""
        return self.lines


def _again(lines: list[Line]) -> list[Line]:
    return [*lines, {**lines[-1], "at": lines[-1]["at"] + 1}]


def _other_bytes(lines: list[Line]) -> list[Line]:
    return [*lines, {**lines[-1], "sha256": "0" * 64}]


def _second_id(lines: list[Line]) -> list[Line]:
    return [*lines, {**lines[-1], "message_id": lines[-1]["message_id"].replace(".1@", ".2@")}]


def _withheld(lines: list[Line]) -> list[Line]:
    return [*lines[:-1], {**lines[-1], "answer": ""}, {**lines[-1], "at": lines[-1]["at"] + 1}]


PLANTED: list[tuple[Callable[[list[Line]], list[Line]], tuple[int, int, int, int]]] = [
    (lambda lines: lines, (0, 0, 0, 0)),
    (lambda lines: lines[:-1], (1, 0, 0, 0)),
    (_again, (0, 0, 1, 0)),
    (_withheld, (0, 0, 0, 1)),
    (_other_bytes, (0, 1, 1, 0)),
    (_second_id, (0, 1, 0, 0)),
]


def test_harness_ledger_finds_what_is_planted(house: House) -> None:
    """A lost mail, a repeat, an excused repeat, other bytes, a second Message-ID, an ERROR in a log."""
    ledger = Ledger(house, "planted")
    house.issue(2)
    house.until_final(ledger.accepted, 60)
    ids = {one.credential_id for one in ledger.accepted if isinstance(one, Accepted)}
    lines = [line for line in house.mails.seen() if line["message_id"].strip("<>").split(".")[0] in ids]
    for plant, wanted in PLANTED:
        ledger.house = replace(house, mails=Rewritten(plant(lines)))  # type: ignore[arg-type]
        found = ledger.count()
        assert (found.lost, found.doubled, found.unexpected, found.excused) == wanted, found.details
    ledger.house = house
    house.client.accepted.append(replace(house.client.accepted[-1], credential_id="cred_missing"))
    assert ledger.count().lost == 1
    house.client.accepted.pop()
    with (house.installation.folder / "logs" / "planted.log").open("a") as log:
        log.write('{"level": "ERROR", "event": "planted"}\nValueError: planted\n')
    assert len(ledger.unexplained_errors([])) == 2
    assert ledger.unexplained_errors(["planted"]) == []
    ledger.finish(expected=["planted"])


def test_harness_point_fires_once_whoever_passes(tmp_path: Path) -> None:
    """Two processes pass an armed point; the second passage of both is the last, and only one dies."""
    armory = Armory(tmp_path)
    armory.arm("here.we.are", nth=2)
    armory.arm("elsewhere")
    code = "from conferral.reliable.crash_points import crash_point as p; p('here.we.are')"
    environ = {**os.environ, "CONFERRAL_CRASH_AT": str(tmp_path)}
    ends = [subprocess.run([sys.executable, "-c", code], env=environ, check=False) for _ in range(4)]
    assert [end.returncode for end in ends] == [0, -signal.SIGKILL, 0, 0]
    (fired,) = armory.fired()
    assert fired.point == "here.we.are"
    assert abs(fired.at - time.time()) < 60
    assert armory.disarm() == ["elsewhere:1"]


@pytest.fixture
def echo() -> Iterator[int]:
    """Yield the port of a server that answers every piece with itself in capitals."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(accepted,), daemon=True).start()

        def answer(accepted: socket.socket) -> None:
            with accepted:
                try:
                    while piece := accepted.recv(1024):
                        accepted.sendall(piece.upper())
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _asks(port: int, text: bytes, seconds: float = 1.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as client:
        client.sendall(text)
        return client.recv(1024)


def test_harness_proxy_spoils_what_it_is_told_to(echo: int) -> None:
    """Delay, refuse, black hole, a lost answer; and everything is forwarded again afterwards."""
    with Proxy(echo) as proxy:
        assert _asks(proxy.port, b"hello") == b"HELLO"
        proxy.delay_seconds = 0.1
        began = time.monotonic()
        assert _asks(proxy.port, b"slow") == b"SLOW"
        assert time.monotonic() - began >= 0.2
        proxy.heal()
        proxy.lose_answer(b"COMMIT")
        assert _asks(proxy.port, b"select 1") == b"SELECT 1"
        assert _answer_is_lost(proxy.port, b"COMMIT")
        assert proxy.lost == 1
        assert _asks(proxy.port, b"commit") == b"COMMIT"
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            _asks(proxy.port, b"anybody?")
        proxy.refuse()
        assert _answer_is_lost(proxy.port, b"there?")
        proxy.heal()
        assert _asks(proxy.port, b"again") == b"AGAIN"
        assert proxy.url("redis://:secret@127.0.0.1:1/0") == f"redis://:secret@127.0.0.1:{proxy.port}/0"


def _answer_is_lost(port: int, text: bytes) -> bool:
    try:
        return _asks(port, text) == b""
    except (ConnectionError, BrokenPipeError):
        return True
