# SPDX-License-Identifier: Apache-2.0
"""A data directory without room, read-only, or somebody else's: said at every door, and healed alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from conferral.adapters.blobs import Blobs
from conferral.reliable.errors import Retryable
from conferral.store.tables import credentials
from support import require
from support.product import product_on
from support.small_disk import small_disk
from support.web import ISSUE, Web, body, web_of

USAGE, UNAVAILABLE = 2, 8
SECONDS = 120
NOBODY = 65_534


def conferral(folder: Path, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command on a data directory."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONFERRAL_")}
    done = subprocess.run(
        [*before, sys.executable, "-P", "-m", "conferral.cli.main", *words],
        env={**own, "CONFERRAL_DATA_DIR": str(folder), "CONFERRAL_HTTP_PORT": "18640"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    """The directory, the reason, the cure, exit code 2; the doctor names it, too; nothing is left behind."""
    with small_disk(tmp_path / "disk", 8) as disk:
        folder = disk.folder / "data"
        assert conferral(folder, "migrate").returncode == 0
        disk.fill()
        done = conferral(folder, "up")
        assert done.returncode == USAGE
        assert f"CONFERRAL_DATA_DIR={str(folder)!r} cannot be used: No space left on device" in done.stderr
        assert "make room" in done.stderr
        assert not list((folder / "run").glob(".probe*"))
        seen = conferral(folder, "doctor")
        assert seen.returncode == 1
        assert "left on its disk" in seen.stdout
        assert "No space left" in conferral(folder, "org", "create", "X").stderr


def test_a_read_only_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    """Not a trace of a lock file that could not be made."""
    with small_disk(tmp_path / "disk", 8) as disk:
        folder = disk.folder / "data"
        assert conferral(folder, "migrate").returncode == 0
        disk.allow_writing(allowed=False)
        try:
            done = conferral(folder, "up")
            assert done.returncode == USAGE
            assert "Read-only file system" in done.stderr
            assert "mount it for writing" in done.stderr
            assert "mounted read-only" in conferral(folder, "doctor").stdout
            assert "Read-only file system" in conferral(folder, "org", "create", "X").stderr
        finally:
            disk.allow_writing(allowed=True)


def test_a_directory_of_somebody_else_is_said(tmp_path: Path) -> None:
    """Whose it is, and what to do."""
    if os.geteuid() != 0:
        require.missing("only root can give a directory away", "run the tests as root")
    setpriv = require.program("setpriv", "apt-get install util-linux")
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    # Root without root's powers: an ordinary user that can still read this checkout.
    powerless = (setpriv, "--bounding-set=-all", "--inh-caps=-all")
    done = conferral(folder, "up", before=powerless)
    assert done.returncode == USAGE
    assert f"CONFERRAL_DATA_DIR={str(folder)!r} cannot be used: Permission denied" in done.stderr
    assert "run as the user that owns it" in done.stderr
    assert f"user id {NOBODY}" in conferral(folder, "doctor", before=powerless).stdout


@pytest.mark.parametrize("place", ["file", "/proc/conferral"])
def test_a_directory_that_can_never_be_one_is_said(tmp_path: Path, place: str) -> None:
    """A file, a place where nothing can be made."""
    (tmp_path / "file").touch()
    done = conferral(tmp_path / place, "up")
    assert done.returncode == USAGE
    assert "CONFERRAL_DATA_DIR=" in done.stderr
    assert "choose" in done.stderr


def test_a_file_store_without_room_asks_to_be_tried_again(tmp_path: Path) -> None:
    """Retryable with its code, nothing half-written; with room it goes on."""
    with small_disk(tmp_path / "disk", 1) as disk:
        store = Blobs(disk.folder)
        disk.fill()
        with pytest.raises(Retryable) as caught:
            store.put(bytes(100_000))
        assert caught.value.code == "storage_full"
        with pytest.raises(OSError, match="No space left"):
            store.check_writable()
        assert [path for path in disk.folder.rglob("*") if path.is_file()] == [disk.folder / "ballast"]
        disk.make_room()
        assert store.get(store.put(bytes(100_000))) == bytes(100_000)
        store.check_writable()


def test_a_disk_that_fills_while_running_is_507_and_heals_alone(tmp_path: Path) -> None:
    """Nothing half-accepted, readiness is red, the credential that waited is issued once there is room."""
    with small_disk(tmp_path / "disk") as disk, product_on("sqlite", disk.folder) as product:
        web = web_of(product)
        waiting = web.post(ISSUE, body("waits@alumni.example"))
        assert waiting.status_code == 202
        disk.fill()
        refused = _until_full(web)
        assert (refused.status_code, refused.get_json()["code"]) == (507, "storage_full")
        assert refused.headers["Retry-After"]
        assert refused.get_json()["retryable"] is True
        assert _readiness(web)[0] == 503
        accepted = len(product.rows(credentials))
        disk.make_room()
        assert _readiness(web)[0] == 200
        assert web.post(ISSUE, body("later@alumni.example")).status_code == 202
        product.run()
        states = [row.state for row in product.rows(credentials)]
        assert states == ["issued"] * (accepted + 1)


def _until_full(web: Web) -> TestResponse:
    """SQLite's log has room of its own for a few commits more."""
    for number in range(200):
        answer = web.post(ISSUE, body(f"p{number}@alumni.example"))
        if answer.status_code != 202:
            return answer
    raise AssertionError("a full disk takes everything")


def _readiness(web: Web) -> tuple[int, str]:
    time.sleep(1.1)  # the answer is kept for a second
    answer = web.client.get("/readyz")
    return answer.status_code, answer.get_data(as_text=True)
