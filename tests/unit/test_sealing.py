# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from conferral.adapters.sealing import (
    KeyFileRefused,
    SealBroken,
    open_sealed,
    read_key_file,
    read_or_create_key_file,
    seal,
)

MASTER = bytes(range(32))


def test_a_seal_opens_only_with_its_key_and_in_its_place() -> None:
    """A sealed secret cannot be moved to another tenant or read under another key."""
    sealed = seal(MASTER, b"secret", associated=b"org_a")
    assert open_sealed(MASTER, sealed, associated=b"org_a") == b"secret"
    assert b"secret" not in sealed
    with pytest.raises(SealBroken):
        open_sealed(MASTER, sealed, associated=b"org_b")
    with pytest.raises(SealBroken):
        open_sealed(bytes(32), sealed, associated=b"org_a")


def test_every_seal_is_fresh() -> None:
    """The same secret sealed twice cannot be recognised."""
    assert seal(MASTER, b"s", associated=b"") != seal(MASTER, b"s", associated=b"")


def test_any_altered_byte_breaks_the_seal() -> None:
    """Version, nonce, ciphertext and tag are all covered."""
    sealed = seal(MASTER, b"secret", associated=b"x")
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(SealBroken):
            open_sealed(MASTER, bytes(altered), associated=b"x")
    for length in (0, 1, 28, len(sealed) - 1):
        with pytest.raises(SealBroken):
            open_sealed(MASTER, sealed[:length], associated=b"x")


def test_a_key_file_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    """First use makes 32 random bytes with mode 0600; later uses read them."""
    path = tmp_path / "keys" / "master.key"
    key = read_or_create_key_file(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_create_key_file(path) == read_key_file(path) == key
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    """The file appears whole or not at all, and the first one wins."""
    path = tmp_path / "master.key"
    found: list[bytes] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        found.append(read_or_create_key_file(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_read_is_refused_with_its_cure(tmp_path: Path, mode: int) -> None:
    """The message says what to run."""
    path = tmp_path / "master.key"
    path.write_bytes(MASTER)
    path.chmod(mode)
    with pytest.raises(KeyFileRefused, match=f"chmod 600 {path}"):
        read_or_create_key_file(path)


def test_a_key_file_of_another_length_or_kind_is_refused(tmp_path: Path) -> None:
    """A cut-off file is never taken for a key, and never replaced."""
    path = tmp_path / "master.key"
    path.write_bytes(MASTER[:-1])
    path.chmod(0o600)
    with pytest.raises(KeyFileRefused, match="32 bytes"):
        read_or_create_key_file(path)
    assert path.read_bytes() == MASTER[:-1]
    with pytest.raises(KeyFileRefused, match="regular"):
        read_or_create_key_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_key_file(tmp_path / "none")
