# SPDX-License-Identifier: Apache-2.0
"""What changing keys promises, on SQLite and PostgreSQL alike: one new key, and nothing old is lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from conferral import wiring
from conferral.adapters.signer import KeyRing
from conferral.domain import canonical, checkpoint, credential_checks, data_integrity, did
from conferral.domain.pdf_attachment import attach
from conferral.domain.problems import Problem
from conferral.reliable import crash_points, dead_letters
from conferral.reliable.errors import Retryable
from conferral.reliable.testing import crash_at
from conferral.services import resigning, rotating_keys, signing_keys, verifying
from conferral.services.runtime import Caller
from conferral.store import tables
from conferral.store.queries import revisions
from support.fake_webhook import FakeWebhook
from support.product import DATABASES, Product, product_on

HOST = "https://creds.example.org"
DID = "did:web:creds.example.org:issuers:demo"
K1, K2, K3 = (f"{DID}#k{number}" for number in (1, 2, 3))
YESTERDAY = timedelta(days=1)
PATIENCE = 120.0  # a lease, the last look, a few retries; no daily signature
ROTATE_POINTS = ("claimed", "key.made", "key.before_commit", "key.after_commit", "settle.before_commit")
RESIGN_POINTS = (
    "key.made", "key.before_commit", "key.after_commit", "resign.stored", "resign.before_commit",
    "resign.after_commit", "log.before_commit", "log.after_commit", "smtp.connected",
)  # fmt: skip


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database, reached under a real host name, in live mode."""
    with product_on(request.param, tmp_path, CONFERRAL_PUBLIC_URL=HOST) as built:
        built.caller = dataclasses.replace(built.caller, mode="live")
        yield built


def rotate(product: Product) -> str:
    """Ask for a rotation; return the run's id."""
    with product.rt.database.transaction() as session:
        return rotating_keys.request_rotation(product.rt, session, product.caller).run_id


def withdraw(product: Product, number: int = 1, *, at: datetime | None = None) -> str:
    """Ask for a withdrawal; return the run's id."""
    moment = at or product.time() - YESTERDAY
    with product.rt.database.transaction() as session:
        return rotating_keys.request_withdrawal(product.rt, session, product.caller, number, moment).run_id


def issue(product: Product, count: int = 1) -> list[Any]:
    """Issue credentials; return their rows."""
    ids = [product.request(f"p{number}@example.com").credential_id for number in range(count)]
    product.run()
    return [product.credential(credential_id) for credential_id in ids]


def keys(product: Product) -> dict[int, Any]:
    """Return the caller's keys by number."""
    table = tables.signing_keys
    mine = table.c.mode == product.caller.mode
    return {row.number: row for row in product.rows(table, mine)}


def listed(product: Product) -> dict[str, bytes]:
    """Return the keys that the DID document allows, as a stranger reads it."""
    document = signing_keys.did_document(product.rt, "demo")
    assert document is not None
    return did.assertion_keys(document)


def document_of(product: Product, digest: str) -> dict[str, Any]:
    """Return a stored credential."""
    return canonical.read_document(product.rt.blobs.get(digest))


def test_old_credentials_stay_valid_when_the_key_is_rotated(product: Product) -> None:
    """The old key stays published for ever, its private half is gone, and the new one signs."""
    (old,) = issue(product)
    rotate(product)
    (new,) = issue(product)
    first, second = keys(product)[1], keys(product)[2]
    assert (first.sealed_private, first.retired_at is None, first.withdrawn_at) == (None, False, None)
    assert (second.retired_at, second.sealed_private is None) == (None, False)
    assert list(listed(product)) == [K1, K2]
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
    assert sorted(keys(product)) == [1, 2]
    assert rotate(product) != first
    product.run()
    assert sorted(keys(product)) == [1, 2, 3]
    assert [number for number, key in keys(product).items() if key.retired_at is None] == [3]


@pytest.mark.parametrize("point", ROTATE_POINTS)
def test_there_is_one_new_key_when_the_process_dies_rotating(product: Product, point: str) -> None:
    """Dying anywhere leaves the old key or the new one, never both and never none."""
    (old,) = issue(product)
    run_id = rotate(product)
    with crash_at(point, task=rotating_keys.ROTATE_TASK):
        product.run()
    assert len([key for key in keys(product).values() if key.retired_at is None]) == 1
    product.run(patience_seconds=PATIENCE)
    assert sorted(keys(product)) == [1, 2]
    assert keys(product)[1].sealed_private is None
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
    assert sorted(keys(product)) == [1]
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
    assert keys(product)[1].sealed_private is not None
    product.use(right)
    product.run(patience_seconds=PATIENCE)
    assert sorted(keys(product)) == [1, 2]


def test_everything_is_signed_again_when_a_key_is_withdrawn(product: Product) -> None:
    """The key leaves the DID document; list and credentials are signed by another; people are told once."""
    with FakeWebhook() as receiver:
        product.subscribe(receiver.url, "credential.resigned")
        (old,) = issue(product)
        withdraw(product)
        product.run(patience_seconds=PATIENCE)
        hooks = [json.loads(hook.body) for hook in receiver.history.requests]
    assert list(listed(product)) == [K2]
    first = keys(product)[1]
    assert (first.sealed_private, first.compromised_at) == (None, first.withdrawn_at - YESTERDAY)
    new = product.credential(old.id)
    assert (new.revision, new.verification_method, new.state) == (2, K2, "issued")
    was, now = document_of(product, old.vc_sha256), document_of(product, new.vc_sha256)
    assert was.pop("proof")["verificationMethod"] == K1
    assert now.pop("proof")["created"] == f"{first.withdrawn_at:%Y-%m-%dT%H:%M:%SZ}"
    assert was == now
    (kept,) = product.rows(tables.revisions)
    assert (kept.credential_id, kept.revision, kept.verification_method) == (old.id, 1, K1)
    assert (kept.vc_sha256, kept.pdf_sha256) == (old.vc_sha256, old.pdf_sha256)
    assert (kept.created_at, kept.replaced_at >= first.withdrawn_at) == (old.created_at, True)
    lists = product.rows(tables.status_lists, tables.status_lists.c.mode == "live")
    methods = [json.loads(row.signed)["proof"]["verificationMethod"] for row in lists]
    assert set(methods) == {K2}
    domain = product.rt.mail_from.rpartition("@")[2]
    assert [mail.message_id for mail in product.mailbox()] == [
        f"<{old.id}.issued.1@{domain}>", f"<{old.id}.resigned.2@{domain}>",
    ]  # fmt: skip
    assert [(hook["type"], hook["data"]["credential_id"]) for hook in hooks] == [
        ("credential.resigned", old.id)
    ]


def test_the_pages_are_the_same_when_a_credential_is_signed_again(product: Product) -> None:
    """The base PDF keeps its bytes; the final one is recomputable from it and the new credential."""
    (old,) = issue(product)
    withdraw(product)
    product.run(patience_seconds=PATIENCE)
    new = product.credential(old.id)
    before, after = product.rt.blobs.get(old.pdf_sha256), product.rt.blobs.get(new.pdf_sha256)
    base = before[: old.base_length]
    assert after[: new.base_length] == base
    assert hashlib.sha384(base).digest() == new.base_sha384
    stored = product.rt.blobs.get(new.vc_sha256)
    created = datetime.fromisoformat(json.loads(stored)["proof"]["created"])
    assert after == attach(base, stored, created)


def test_both_revisions_are_in_the_log_when_a_credential_is_signed_again(product: Product) -> None:
    """The log holds one leaf for each revision, and proves the newest."""
    (old,) = issue(product)
    withdraw(product)
    product.run(patience_seconds=PATIENCE)
    new = product.credential(old.id)
    leaves = product.rows(tables.leaves)
    assert [(leaf.revision, leaf.leaf_index) for leaf in leaves] == [(1, 0), (2, 1)]
    assert [leaf.entry.hex() for leaf in leaves] == [old.vc_sha256, new.vc_sha256]
    (log,) = product.rows(tables.logs)
    proof = verifying.tlog_proof(product.rt, new.token)
    assert proof is not None
    stored = product.rt.blobs.get(new.vc_sha256)
    pinned = [checkpoint.VerifierKey(log.origin, log.public_key)]
    assert credential_checks.check_anchor(stored, proof, pinned).ok is True


@pytest.mark.parametrize("point", RESIGN_POINTS)
def test_each_revision_is_one_when_the_process_dies_signing_again(
    product: Product, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost 0, second identities 0: each credential has one next revision, one leaf, one mail, one event."""
    monkeypatch.setattr(resigning, "CHUNK", 2)
    with FakeWebhook() as receiver:
        product.subscribe(receiver.url, "credential.resigned")
        rows = issue(product, 5)
        withdraw(product)
        with crash_at(point):
            product.run()
        product.run(patience_seconds=PATIENCE)
        hooks = [json.loads(hook.body)["data"]["credential_id"] for hook in receiver.history.requests]
    assert sorted(keys(product)) == [1, 2]
    ids = sorted(row.id for row in rows)
    found = [product.credential(one) for one in ids]
    assert {(row.revision, row.verification_method) for row in found} == {(2, K2)}
    assert [(row.credential_id, row.revision) for row in product.rows(tables.revisions)] == [
        (one, 1) for one in ids
    ]
    leaves = product.rows(tables.leaves)
    assert sorted((leaf.credential_id, leaf.revision) for leaf in leaves) == [
        (one, revision) for one in ids for revision in (1, 2)
    ]
    assert sorted(leaf.leaf_index for leaf in leaves) == list(range(10))
    told = [mail.message_id for mail in product.mailbox() if ".resigned." in mail.message_id]
    assert len(set(told)) == 5
    assert sorted(set(hooks)) == ids
    if point != "smtp.connected":
        assert (len(told), len(hooks)) == (5, 5)
    assert {run.state for run in product.rows_of_work()} == {"SUCCESS"}


def test_a_rotated_key_is_withdrawn_when_it_was_stolen_before(product: Product) -> None:
    """Only what the stolen key signed is signed again, by the key that is current already."""
    (old,) = issue(product)
    rotate(product)
    (young,) = issue(product)
    withdraw(product, 1)
    product.run(patience_seconds=PATIENCE)
    assert sorted(keys(product)) == [1, 2]
    assert list(listed(product)) == [K2]
    assert (product.credential(old.id).revision, product.credential(young.id).revision) == (2, 1)


def test_a_credential_has_a_third_revision_when_the_next_key_is_stolen_too(product: Product) -> None:
    """Every withdrawal moves it on by one; what it was before stays known."""
    (old,) = issue(product)
    for number in (1, 2):
        withdraw(product, number)
        product.run(patience_seconds=PATIENCE)
        product.time.move(60)
    row = product.credential(old.id)
    assert (row.revision, row.verification_method) == (3, K3)
    with product.rt.database.snapshot() as session:
        earlier = revisions.of_credential(session, old.id)
        assert [(one.revision, one.verification_method) for one in earlier] == [(1, K1), (2, K2)]
        assert revisions.by_digest(session, earlier[1].vc_sha256) is not None
    assert [mail.message_id.split("@")[0] for mail in product.mailbox()] == [
        f"<{old.id}.issued.1", f"<{old.id}.resigned.2", f"<{old.id}.resigned.3",
    ]  # fmt: skip


@pytest.mark.parametrize(("state", "revision"), [("revoked", 1), ("superseded", 1), ("suspended", 2)])
def test_what_is_over_is_not_signed_again_when_a_key_is_withdrawn(
    product: Product, state: str, revision: int
) -> None:
    """Signed again is what is in force or may be again; a revoked credential gets no new life."""
    (row,) = issue(product)
    with product.rt.database.transaction() as session:
        session.execute(
            update(tables.credentials).where(tables.credentials.c.id == row.id).values(state=state)
        )
    withdraw(product)
    product.run(patience_seconds=PATIENCE)
    found = product.credential(row.id)
    assert (found.state, found.revision) == (state, revision)


def test_a_late_signature_is_signed_again_when_the_key_was_withdrawn_meanwhile(product: Product) -> None:
    """An attempt that opened the key before the withdrawal and commits after it is found and signed again."""
    issue(product)
    accepted = product.request("late@example.com")

    def meanwhile() -> None:
        crash_points.arm(None)
        withdraw(product)
        product.run_only(rotating_keys.WITHDRAW_TASK)
        product.run_only(resigning.TASK)

    crash_points.arm("vc.signed", meanwhile)
    try:
        product.run_only("tasks.issuance.issue_credential")
    finally:
        crash_points.arm(None)
    late = product.credential(accepted.credential_id)
    assert (late.state, late.verification_method) == ("issuing", K1)
    product.run(patience_seconds=PATIENCE)
    found = product.credential(accepted.credential_id)
    assert (found.state, found.revision, found.verification_method) == ("issued", 2, K2)
    told = [mail.message_id for mail in product.mailbox() if found.id in mail.message_id]
    assert [name.split(".")[1] for name in told] == ["issued", "resigned"]


def test_altered_bytes_are_not_signed_again_when_a_key_is_withdrawn(product: Product) -> None:
    """What is not what our rows name gets no new signature; the others do."""
    damaged, sound = issue(product, 2)
    (path,) = (product.settings.data_dir / "blobs").rglob(damaged.vc_sha256)
    path.write_bytes(path.read_bytes().replace(b"Ada Lovelace", b"Eve Lovelace"))
    withdraw(product)
    product.run(patience_seconds=PATIENCE)
    assert (product.credential(damaged.id).revision, product.credential(sound.id).revision) == (1, 2)
    results = [run.result for run in product.runs_of(resigning.TASK)]
    assert results[0] == {"signed_again": 1, "skipped": 1}


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
    since = keys(product)[1].compromised_at
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
    assert sorted(keys(product)) == [1, 2]


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
    assert datetime.now(UTC) > keys(product)[1].created_at
