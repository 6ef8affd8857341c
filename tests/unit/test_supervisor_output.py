# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from conferral.cli import banner
from conferral.cli.output import Output


class Terminal(io.StringIO):
    """A terminal that remembers what it showed."""

    def isatty(self) -> bool:
        """Claim to be one."""
        return True


def shown(terminal: io.StringIO, folder: Path, *lines: bytes, colour: bool = False) -> list[str]:
    """Return what a process's lines look like on this terminal."""
    output = Output(folder, terminal, colour=colour)
    read, write = os.pipe()
    output.attach("mail", read)
    for line in lines:
        os.write(write, line)
    os.close(write)
    output.wait_until_read("mail")
    output.close()
    return terminal.getvalue().splitlines()


def test_every_line_has_the_name_of_its_process_on_a_terminal(tmp_path: Path) -> None:
    """A structured line is made readable, a plain one is left alone."""
    event = b'{"ts": "x", "level": "info", "event": "mail_sent", "run_id": "r1", "attempt": 2}\n'
    assert shown(Terminal(), tmp_path, event, b"plain\n", b"last words") == [
        "mail    | mail_sent  run_id=r1 attempt=2",
        "mail    | plain",
        "mail    | last words",
    ]
    assert (tmp_path / "mail.log").read_bytes() == event + b"plain\nlast words\n"
    assert (tmp_path / "mail.log").stat().st_mode & 0o777 == 0o600


def test_names_and_errors_are_coloured_when_colour_is_wanted(tmp_path: Path) -> None:
    """NO_COLOR and pipes get none."""
    lines = shown(Terminal(), tmp_path, b'{"level": "error", "event": "bad"}\n', colour=True)
    assert lines == ["\x1b[36mmail    |\x1b[0m \x1b[31mbad\x1b[0m"]
    assert shown(io.StringIO(), tmp_path, b"x\n", colour=True)[0].startswith("{")


def test_every_line_is_one_object_without_a_terminal(tmp_path: Path) -> None:
    """A log collector parses everything, also what a library prints."""
    first, second = map(json.loads, shown(io.StringIO(), tmp_path, b'{"event": "a"}\n', "ünï\n".encode()))
    assert first == {"process": "mail", "event": "a"}
    assert (second["process"], second["event"]) == ("mail", "ünï")


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    """One runaway process does not fill the memory of the supervisor."""
    lines = shown(Terminal(), tmp_path, b"x" * 200_000, b"\nnext\n")
    assert len(lines) >= 3
    assert lines[-1] == "mail    | next"


def test_a_log_file_is_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A noisy process fills a file and an older one, not the disk."""
    monkeypatch.setattr("conferral.cli.output._FILE_BYTES", 1_000)
    shown(Terminal(), tmp_path, *(b"x" * 99 + b"\n" for _ in range(50)))
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("mail*")}
    assert set(sizes) == {"mail.log", "mail.1.log"}
    assert max(sizes.values()) <= 1_100


def ready(demo: dict[str, str]) -> str:
    """Return the banner of an installation."""
    facts = banner.Ready(
        seconds=9.8,
        console_url="http://localhost:8000",
        flower_url="http://127.0.0.1:5555",
        flower_user="operator",
        flower_password="flower-password",
        data_dir=Path("/data"),
        demo=demo,
        late=["beat"],
    )
    return "\n".join(banner.lines(facts, colour=False, command="./run", example="examples/graduates.csv"))


def test_the_banner_tells_how_to_get_in_and_what_to_do_next() -> None:
    """Address, login, key, Flower and three commands that work when pasted."""
    text = ready({"login": "admin@demo.example", "password": "pw", "api_key": "conferral_test_x"})
    for word in (
        "after 9.8 s",
        "http://localhost:8000",
        "admin@demo.example   password pw",
        "conferral_test_x",
    ):
        assert word in text
    assert "http://127.0.0.1:5555   user operator   password flower-password" in text
    assert "./run batch issue examples/graduates.csv --template diploma --yes --watch" in text
    assert "curl http://localhost:8000/credentials/issue" in text
    assert "./run status" in text
    assert "Waiting    beat" in text
    assert "\x1b" not in text


def test_the_banner_of_production_names_no_login() -> None:
    """There is no demo, and no key that a scrollback would keep."""
    text = ready({})
    assert "Login" not in text
    assert "./run org create" in text
