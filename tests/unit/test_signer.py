# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from conferral.adapters import signer as signer_module
from conferral.adapters.signer import KeyRing, Signer, generate_key
from conferral.reliable.errors import Retryable

MASTER = bytes(range(32))


def test_signing_follows_rfc_8032() -> None:
    """Test 2 of RFC 8032 7.1."""
    signer = Signer(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert signer.public_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert signer.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_keys_are_fresh_and_fit_together() -> None:
    """A generated public key is the one its private key signs with."""
    private, public = generate_key()
    assert Signer(private).public_key == public
    assert generate_key()[0] != private


def test_a_sealed_key_signs_only_for_its_organisation_and_id() -> None:
    """A key moved to another tenant, or kept open for it, does not answer."""
    ring = KeyRing(MASTER)
    private, public = generate_key()
    sealed = ring.seal("key_1", "org_a", private)
    assert ring.signer("key_1", "org_a", sealed).public_key == public
    for key_id, organisation in (("key_1", "org_b"), ("key_2", "org_a"), ("key_1org", "_a")):
        with pytest.raises(Retryable) as refused:
            ring.signer(key_id, organisation, sealed)
        assert refused.value.code == "signing_key_unavailable"


def test_another_master_key_is_a_retryable_failure_that_names_the_setting() -> None:
    """The operator reads which key and which setting; no secret is in the message."""
    private, _ = generate_key()
    sealed = KeyRing(MASTER).seal("key_1", "org_a", private)
    with pytest.raises(Retryable) as refused:
        KeyRing(bytes(32)).signer("key_1", "org_a", sealed)
    assert "CONFERRAL_MASTER_KEY_FILE" in refused.value.detail
    assert "key_1" in refused.value.detail
    assert private.hex() not in str(refused.value)


def test_opened_keys_are_kept_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch opens its key once; memory holds the last few."""
    monkeypatch.setattr(signer_module, "MAX_OPEN_KEYS", 2)
    ring = KeyRing(MASTER)
    sealed = {name: ring.seal(name, "org", generate_key()[0]) for name in ("a", "b", "c")}
    first = ring.signer("a", "org", sealed["a"])
    assert ring.signer("a", "org", sealed["a"]) is first
    ring.signer("b", "org", sealed["b"])
    ring.signer("a", "org", sealed["a"])
    ring.signer("c", "org", sealed["c"])
    assert ring.signer("a", "org", sealed["a"]) is first
    assert len(ring._open) == 2


def test_a_signer_never_prints_its_key() -> None:
    """The representation shows the public half only."""
    private, public = generate_key()
    assert repr(Signer(private)) == f"Signer(public_key={public.hex()})"
