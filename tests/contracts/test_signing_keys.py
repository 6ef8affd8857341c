# SPDX-License-Identifier: Apache-2.0
"""What changing keys promises, on SQLite and PostgreSQL alike: one new key, and nothing old is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from conferral import wiring
from conferral.adapters.signer import KeyRing
from conferral.domain import data_integrity
from conferral.domain.problems import Problem
from conferral.reliable import dead_letters
from conferral.reliable.errors import Retryable
from conferral.reliable.testing import crash_at
from conferral.services import rotating_keys, signing_keys, verifying
from conferral.services.runtime import Caller
from conferral.store import tables
from support.issuer_keys import (
    K1,
    K2,
    PATIENCE,
    YESTERDAY,
    issue,
    keys_of,
    listed_in,
    named_product_on,
    rotate,
    withdraw,
)
from support.product import DATABASES, Product, product_on

ROTATE_POINTS = ("claimed", "key.made", "key.before_commit", "key.after_commit", "settle.before_commit")


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database, reached under a real host name, in live mode."""
    with named_product_on(request.param, tmp_path) as built:
        yield built


def test_old_credentials_stay_valid_when_the_key_is_rotated(product: Product) -> None:
    """The old key stays published for ever, its private half is gone, and the new one signs."""
    (old,) = issue(product)
    rotate(product)
    (new,) = issue(product)
    first, second = keys_of(product)[1], keys_of(product)[2]
    assert (first.sealed_private, first.retired_at is None, first.withdrawn_at) == (None, False, None)
    assert (second.retired_at, second.sealed_private is None) == (None, False)
    assert list(listed_in(product)) == [K1, K2]
    assert (old.verification_method, new.verification_method) == (K1, K2)
    for row in (old, new):
        found = verifying.by_token(product.rt, row.token)
        assert found is not None
        assert found.judgement.verdict == "VALID"
        assert product.credential(row.id).revision == 1


def test_a_rotation_is_one_when_it_is_asked_for_twice(product: Product) -> None:
    """Whoever asks again for the same key gets the same run, and afterwards a new rotation."""
    issue(product)
    assert rotate(product) == (first := rotate(product))
    product.run()
    assert sorted(keys_of(product)) == [1, 2]
    assert rotate(product) != first
    product.run()
    assert sorted(keys_of(product)) == [1, 2, 3]
    assert [number for number, key in keys_of(product).items() if key.retired_at is None] == [3]


@pytest.mark.parametrize("point", ROTATE_POINTS)
def test_there_is_one_new_key_when_the_process_dies_rotating(product: Product, point: str) -> None:
    """Dying anywhere leaves the old key or the new one, never both and never none."""
    (old,) = issue(product)
    run_id = rotate(product)
    with crash_at(point, task=rotating_keys.ROTATE_TASK):
        product.run()
    assert len([key for key in keys_of(product).values() if key.retired_at is None]) == 1
    product.run(patience_seconds=PATIENCE)
    assert sorted(keys_of(product)) == [1, 2]
    assert keys_of(product)[1].sealed_private is None
    (run,) = product.runs_of(rotating_keys.ROTATE_TASK)
    assert (run.id, run.state, run.result["current"]) == (run_id, "SUCCESS", K2)
    (new,) = issue(product)
    assert (product.credential(old.id).verification_method, new.verification_method) == (K1, K2)


def test_two_current_keys_are_refused_when_somebody_writes_them(product: Product) -> None:
    """The database itself allows an issuer one key that signs, and no retired key that could."""
    issue(product)
    made = signing_keys.make_key(product.rt, product.caller.organisation_id)
    organisation_id = product.caller.organisation_id
    with product.rt.database.transaction() as session:
        now = product.time()
        signing_keys.add_key(session, organisation_id, "live", 2, made=made, now=now)
    assert sorted(keys_of(product)) == [1]
    retired = update(tables.signing_keys).where(tables.signing_keys.c.mode == "live")
    with pytest.raises(IntegrityError), product.rt.database.transaction() as session:
        session.execute(retired.values(retired_at=product.time()))


def test_a_foreign_master_key_replaces_nothing_when_a_worker_has_it(product: Product) -> None:
    """A worker that cannot open the current key does not destroy it."""
    issue(product)
    run_id = rotate(product)
    right = product.rt
    product.use(dataclasses.replace(right, keyring=KeyRing(bytes(32))))
    product.run()
    assert product.outcomes(run_id) == ["retry"]
    assert keys_of(product)[1].sealed_private is not None
    product.use(right)
    product.run(patience_seconds=PATIENCE)
    assert sorted(keys_of(product)) == [1, 2]


def test_a_did_key_is_refused_with_the_way_out_when_its_key_should_change(product: Product) -> None:
    """In test mode, and on a machine without a host name, the answer says why and what to do."""
    product.caller = dataclasses.replace(product.caller, mode="test")
    issue(product)
    for ask in (rotate, withdraw):
        with pytest.raises(Problem) as refused:
            ask(product)
        assert (refused.value.code, refused.value.type.status) == ("did_key_fixed", 409)
        assert "live mode can be rotated" in refused.value.detail


def test_a_machine_without_a_name_says_what_to_set_when_its_key_should_change(tmp_path: Path) -> None:
    """A live did:key names CONFERRAL_PUBLIC_URL and a new organisation as the way to rotation."""
    with product_on("sqlite", tmp_path) as product:
        product.caller = dataclasses.replace(product.caller, mode="live")
        issue(product)
        with pytest.raises(Problem) as refused:
            rotate(product)
    assert refused.value.code == "did_key_fixed"
    assert "CONFERRAL_PUBLIC_URL" in refused.value.detail


def test_a_withdrawal_is_refused_when_it_makes_no_sense(product: Product) -> None:
    """A key that is not there, a date that is not yet, a second date for the same key."""
    issue(product)
    with pytest.raises(Problem) as unknown:
        withdraw(product, 7)
    with pytest.raises(Problem) as early:
        withdraw(product, 1, at=product.time() + YESTERDAY)
    first = withdraw(product, at=product.time() - YESTERDAY)
    product.run(patience_seconds=PATIENCE)
    since = keys_of(product)[1].compromised_at
    assert withdraw(product, at=since) == first
    with pytest.raises(Problem) as other:
        withdraw(product, at=since - YESTERDAY)
    codes = (unknown.value.code, early.value.code, other.value.code)
    assert codes == ("not_found", "validation_failed", "state_conflict")


def test_a_rotation_that_was_given_up_goes_on_when_it_is_asked_for_again(product: Product) -> None:
    """Asking again revives the dead letter: the same run, one new key."""
    issue(product)
    right = product.rt
    product.use(dataclasses.replace(right, keyring=None))
    run_id = rotate(product)
    product.run(patience_seconds=3600)
    with product.rt.database.snapshot() as session:
        assert [row.id for row in dead_letters.listed(session, dead_letters.Filter())][-1] == run_id
    product.use(right)
    assert rotate(product) == run_id
    product.run()
    assert sorted(keys_of(product)) == [1, 2]


def test_nothing_is_believed_by_a_withdrawn_key_alone_when_it_signs_afterwards(product: Product) -> None:
    """Bytes that only the thief's signature vouches for are no document of the issuer's for anybody."""
    issue(product)
    stolen = signing_keys.issuer(product.rt, product.caller.organisation_id, "live")
    withdraw(product)
    product.run(patience_seconds=PATIENCE)
    known = signing_keys.known(product.rt, product.caller.organisation_id, "live")
    assert (known[K1].is_withdrawn, known[K1].public_key) == (True, stolen.public_key)
    published = signing_keys.published(product.rt, product.caller.organisation_id, "live")
    assert set(published) == {K2}
    assert published[K2] != stolen.public_key
    assert data_integrity.verify_proof({}, stolen.public_key) is False


def test_no_key_opens_when_the_process_is_not_of_the_issuance_pool(product: Product) -> None:
    """Web, mail and command line are built without the master key, and neither make nor open a key."""
    for role in ("web", "mail", "hooks", "lp", "cli", "streams"):
        built = wiring.build(dataclasses.replace(product.settings, role=role))
        try:
            assert built.keyring is None
            with pytest.raises(Retryable):
                signing_keys.make_key(built, product.caller.organisation_id)
            with pytest.raises(Retryable):
                signing_keys.issuer(built, product.caller.organisation_id, "live")
        finally:
            built.renderer.close()
            built.webhook_client.close()
            built.database.dispose()


def test_another_organisation_keeps_its_keys_when_one_changes_its_own(product: Product) -> None:
    """A caller reaches the keys of its own organisation and mode only."""
    issue(product)
    stranger = Caller("org_stranger", "live", "test", frozenset())
    with product.rt.database.transaction() as session, pytest.raises(Problem) as refused:
        rotating_keys.request_rotation(product.rt, session, stranger)
    assert refused.value.code == "state_conflict"
    before = {row.id for row in product.rows(tables.signing_keys, tables.signing_keys.c.mode == "test")}
    rotate(product)
    product.run()
    after = {row.id for row in product.rows(tables.signing_keys, tables.signing_keys.c.mode == "test")}
    assert before == after
    assert datetime.now(UTC) > keys_of(product)[1].created_at
