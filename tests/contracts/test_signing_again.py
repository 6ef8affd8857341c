# SPDX-License-Identifier: Apache-2.0
"""What a withdrawn key leaves behind, on SQLite and PostgreSQL alike: every credential signed again, once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from conferral.adapters import brought_file
from conferral.domain import checkpoint, credential_checks, vc
from conferral.domain.pdf_attachment import attach
from conferral.reliable import crash_points
from conferral.reliable.testing import crash_at
from conferral.services import resigning, rotating_keys, signing_keys, verifying, verifying_uploads
from conferral.store import tables
from conferral.store.queries import revisions
from support.fake_webhook import FakeWebhook
from support.issuer_keys import (
    K1,
    K2,
    K3,
    PATIENCE,
    YESTERDAY,
    document_of,
    issue,
    keys_of,
    listed_in,
    named_product_on,
    rotate,
    withdraw,
)
from support.product import DATABASES, Product

RESIGN_POINTS = (
    "key.made", "key.before_commit", "key.after_commit", "resign.stored", "resign.before_commit",
    "resign.after_commit", "log.before_commit", "log.after_commit", "smtp.connected",
)  # fmt: skip


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database, reached under a real host name, in live mode."""
    with named_product_on(request.param, tmp_path) as built:
        yield built


def test_everything_is_signed_again_when_a_key_is_withdrawn(product: Product) -> None:
    """The key leaves the DID document; list and credentials are signed by another; people are told once."""
    with FakeWebhook() as receiver:
        product.subscribe(receiver.url, "credential.resigned")
        (old,) = issue(product)
        withdraw(product)
        product.run(patience_seconds=PATIENCE)
        hooks = [json.loads(hook.body) for hook in receiver.history.requests]
    assert list(listed_in(product)) == [K2]
    first = keys_of(product)[1]
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
    assert sorted(keys_of(product)) == [1, 2]
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
    assert sorted(keys_of(product)) == [1, 2]
    assert list(listed_in(product)) == [K2]
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
    page = verifying.by_token(product.rt, row.token)
    assert page is not None
    assert page.judgement.verdict == {"superseded": "REPLACED"}.get(state, state.upper())


def test_the_page_stays_right_when_its_credential_waits_to_be_signed_again(product: Product) -> None:
    """Between the withdrawal and the next revision a page of ours does not call our own record a forgery."""
    (row,) = issue(product)
    withdraw(product)
    product.run_only(rotating_keys.WITHDRAW_TASK)
    assert product.credential(row.id).revision == 1
    page = verifying.by_token(product.rt, row.token)
    assert page is not None
    assert page.judgement.verdict == "VALID"


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


def test_a_copy_is_told_from_a_forgery_when_its_key_was_withdrawn(product: Product) -> None:
    """Revision 1 reads REPLACED, revision 2 VALID; what a thief signs reads UNKNOWN and is an alarm."""
    (row,) = issue(product)
    stolen = signing_keys.issuer(product.rt, product.caller.organisation_id, "live")
    withdraw(product)
    product.run(patience_seconds=PATIENCE)
    new = product.credential(row.id)
    forged = document_of(product, new.vc_sha256)
    forged = {name: value for name, value in forged.items() if name != "proof"} | {"name": "Medicine"}
    copies = {
        "REPLACED": product.rt.blobs.get(row.vc_sha256),
        "VALID": product.rt.blobs.get(new.vc_sha256),
        "UNKNOWN": vc.stored_form(
            vc.sign(
                forged, sign=stolen.sign, verification_method=stolen.verification_method,
                created=product.time(),
            )
        ),
    }  # fmt: skip
    for verdict, copy in copies.items():
        found = verifying_uploads.judged(product.rt, brought_file.read(copy))
        assert found is not None
        assert found.judgement.verdict == verdict
        assert found.judgement.is_unlogged_signature is (verdict == "UNKNOWN")
