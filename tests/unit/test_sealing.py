# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from conferral.adapters.sealing import SealBroken, open_sealed, seal

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
