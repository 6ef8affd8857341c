# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import stat
import threading
from pathlib import Path

import pytest

from conferral.settings import SettingsError, key_files

MASTER = base64.b64encode(bytes(range(32)))


def test_a_key_file_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    """First use makes 32 random bytes with mode 0600; later uses read them."""
    path = tmp_path / "keys" / "master.key"
    key = key_files.read_or_create(path, inside=path.parent)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_files.read_or_create(path, inside=path.parent) == key
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    """The file appears whole or not at all, and the first one wins."""
    path = tmp_path / "master.key"
    found: list[bytes] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        found.append(key_files.read_or_create(path, inside=path.parent))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666])
def test_a_key_file_that_others_can_read_is_refused_with_its_cure(tmp_path: Path, mode: int) -> None:
    """The message says what to run."""
    path = tmp_path / "master.key"
    path.write_bytes(MASTER)
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        key_files.read_or_create(path, inside=path.parent)


def test_a_key_file_of_another_length_or_kind_is_refused(tmp_path: Path) -> None:
    """A cut-off file is never taken for a key, and never replaced."""
    path = tmp_path / "master.key"
    path.write_bytes(MASTER[:-1])
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="32 random bytes"):
        key_files.read_or_create(path, inside=path.parent)
    assert path.read_bytes() == MASTER[:-1]
    with pytest.raises(SettingsError, match="cannot be read"):
        key_files.read_or_create(tmp_path, inside=tmp_path / "keys")
    with pytest.raises(SettingsError, match="cannot be read"):
        key_files.read_or_create(tmp_path / "none", inside=tmp_path / "keys")
