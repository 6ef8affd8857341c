# SPDX-License-Identifier: Apache-2.0
"""The command line beside a real `conferral up`: on a terminal, with real workers, and with Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.installation import Installation, installed

EXAMPLE = Path(__file__).parents[2] / "examples" / "graduates.csv"
PATIENCE_SECONDS = 90.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Yield one running installation for all tests of this file."""
    with installed(tmp_path_factory.mktemp("installation")) as running:
        yield running


@dataclass
class Terminal:
    """A command on a pseudo terminal."""

    process: subprocess.Popen[bytes]
    descriptor: int
    text: str = field(default="")

    def until(self, words: str) -> str:
        """Read until some words appear, and return everything so far."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in ESCAPES.sub("", self.text):
            assert time.monotonic() < deadline, self.text
            if not self._read():
                assert words in ESCAPES.sub("", self.text), self.text
        return ESCAPES.sub("", self.text)

    def write(self, text: str) -> None:
        """Type something."""
        os.write(self.descriptor, text.encode())

    def end(self) -> int:
        """Read to the end and return the exit status."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self) -> bool:
        if not select.select([self.descriptor], [], [], 1.0)[0]:
            return self.process.poll() is None
        try:
            found = os.read(self.descriptor, 65_536)
        except OSError:  # the other end is closed
            return False
        self.text += found.decode(errors="replace")
        return bool(found)


def terminal(installation: Installation, *words: str | Path, **variables: str) -> Terminal:
    """Start a command on a terminal of its own."""
    mine, theirs = pty.openpty()
    own = {name: value for name, value in installation.environ.items() if not name.endswith("_PORT")}
    process = subprocess.Popen(
        installation.command(*map(str, words)),
        env=own | {"TERM": "xterm-256color", "COLUMNS": "120"} | variables,
        cwd=installation.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return Terminal(process, mine)


def test_a_batch_is_confirmed_and_watched_with_live_bars(installation: Installation) -> None:
    """What happens is said before it happens; bars grow to the end; the summary counts."""
    console = terminal(installation, "batch", "issue", EXAMPLE, "--template", "diploma", "--watch")
    asked = console.until("Issue them? [y/N]")
    assert "issue 25 credentials, add 25 log entries and send 25 mails" in asked
    console.write("y\n")
    assert console.end() == 0, console.text
    shown = ESCAPES.sub("", console.text)
    assert re.search(r"Issued +━+ 25/25", shown)
    assert re.search(r"E-mail +━+ 25/25", shown)
    assert "25 issued, 25 e-mails sent" in shown


def test_nothing_is_issued_when_a_person_says_no(installation: Installation) -> None:
    """No is no."""
    before = installation.run("batch", "list", "--json").stdout
    console = terminal(installation, "batch", "issue", EXAMPLE, "--template", "diploma")
    console.until("Issue them? [y/N]")
    console.write("n\n")
    assert console.end() == 1
    assert installation.run("batch", "list", "--json").stdout == before


def test_no_colour_is_used_when_nobody_wants_it(installation: Installation) -> None:
    """NO_COLOR is honoured on a terminal, too."""
    console = terminal(
        installation, "batch", "issue", EXAMPLE, "--template", "diploma", "--dry-run", NO_COLOR="1"
    )
    assert console.end() == 0
    assert "\x1b[" not in console.text


def test_ctrl_c_detaches_and_the_batch_goes_on(installation: Installation, tmp_path: Path) -> None:
    """Leaving loses nothing; the way back is said, and leads to the same batch."""
    file = tmp_path / "many.csv"
    rows = "".join(f"Person {number},person{number}@alumni.example,Databases\n" for number in range(200))
    file.write_text("Full name,E-mail,Course\n" + rows)
    console = terminal(installation, "batch", "issue", file, "--template", "diploma", "--yes", "--watch")
    console.until("Issued ")
    console.process.send_signal(signal.SIGINT)
    assert console.end() == 130, console.text
    shown = ESCAPES.sub("", console.text)
    back = re.search(r"Come back with: conferral batch watch (bat_\w+)", shown)
    assert back is not None, shown
    assert "Traceback" not in shown
    watched = installation.run("batch", "watch", back.group(1), "--json")
    assert watched.returncode == 0, watched.stderr
    done = json.loads(watched.stdout.splitlines()[-1])
    assert done["credentials"] == {"issued": 200}
    assert done["tasks"]["send_issuance_email"] == {"SUCCESS": 200}


def test_a_listener_verifies_every_webhook_of_a_batch(installation: Installation) -> None:
    """25 credentials, 25 signatures that hold, and a bar for them."""
    listener = installation.background("webhooks", "listen", "--count", "25", "--timeout", "60", "--json")
    assert listener.stdout is not None
    assert json.loads(listener.stdout.readline())["event"] == "listening"
    done = installation.run("batch", "issue", str(EXAMPLE), "--template", "diploma", "--yes", "--watch")
    assert done.returncode == 0, done.stdout
    assert "Webhook 25/25" in done.stdout
    heard = [json.loads(line) for line in listener.communicate(timeout=PATIENCE_SECONDS)[0].splitlines()]
    assert listener.returncode == 0
    assert len({one["webhook_id"] for one in heard if one["verified"]}) == 25


def test_status_names_processes_leaders_and_workers(installation: Installation) -> None:
    """One look says who runs, who leads, what waits."""
    records = [json.loads(line) for line in installation.run("status", "--json").stdout.splitlines()]
    ready = {one["name"] for one in records if one["kind"] == "process" and one["state"] == "ready"}
    assert ready >= {"redis", "web", "hp", "mail", "hooks", "chain", "lp", "beat", "flower"}
    assert {one["name"]: one["is_held"] for one in records if one["kind"] == "leader"} == {
        "dispatcher": True,
        "beat": True,
    }
    pools = {one["pool"] for one in records if one["kind"] == "worker"}
    assert pools == {"hp", "mail", "hooks", "chain", "lp"}
    text = installation.run("status").stdout
    assert re.search(r"dispatcher +1 +\w+@\S+, pid \d+", text)


def test_one_credential_is_waited_for_and_verified_by_its_id(installation: Installation) -> None:
    """From a name to a verdict in two commands."""
    words = ("--name", "Ada Lovelace", "--email", "ada@alumni.example", "--field", "course=Engines")
    issued = installation.run("issue", "--template", "diploma", *words, "--wait", "--json")
    assert issued.returncode == 0, issued.stderr
    credential_id = json.loads(issued.stdout.splitlines()[0])["credential_id"]
    verified = installation.run("verify", credential_id)
    assert verified.returncode == 0
    assert verified.stdout.startswith("VALID")
