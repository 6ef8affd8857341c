# SPDX-License-Identifier: Apache-2.0
"""Revoke, suspend, reinstate, supersede, on SQLite and PostgreSQL: the row, the bit, who is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conferral.domain import status_list
from conferral.domain.problems import Problem
from conferral.domain.status_change import REINSTATE, REVOKE, SUSPEND, VERBS
from conferral.reliable import dead_letters
from conferral.reliable.testing import crash_at
from conferral.services import status_lists as lists
from conferral.services import verifying
from conferral.store import tables
from conferral.store.queries import status_lists
from support.fake_webhook import FakeWebhook
from support.product import A_WEEK, DATABASES, Product, product_on
from support.statuses import (
    SUSPENDABLE,
    bit_of,
    change,
    correct,
    events,
    issued,
    lists_equal_rows,
    mails,
    served,
    suspendable_template,
)

PUBLISH = "tasks.issuance.publish_status_list"


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database, with a template of each purpose."""
    with product_on(request.param, tmp_path) as built:
        suspendable_template(built)
        built.run()
        yield built


def test_a_revoked_credential_is_told_and_listed_once_when_it_is_revoked_twice(product: Product) -> None:
    """One row, one bit, one event, one mail, one audit line; the second answer is the first one."""
    credential_id = issued(product)
    with FakeWebhook() as receiver:
        product.subscribe(receiver.url, "credential.revoked")
        first = change(product, REVOKE, credential_id, reason="misconduct")
        again = change(product, REVOKE, credential_id, reason="issued_in_error")
        product.run(patience_seconds=5)
        (hook,) = receiver.history.requests
    row = product.credential(credential_id)
    assert (row.state, row.status_reason, row.status_changed_at) == (
        "revoked",
        "misconduct",
        first.changed_at,
    )
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.state, again.reason, again.run_ids) == (first.state, first.reason, first.run_ids)
    assert len(first.run_ids) == 2
    assert json.loads(hook.body)["data"]["state"] == "revoked"
    assert mails(product, credential_id) == ["issued", "revoked"]
    assert events(product, credential_id) == ["credential.issued", "credential.revoked"]
    (line,) = product.rows(tables.audit_log, tables.audit_log.c.subject == credential_id)
    assert (line.actor, line.action) == ("test", "credential.revoked")
    assert bit_of(product, credential_id)
    found = verifying.by_token(product.rt, row.token)
    assert found is not None
    assert found.judgement.verdict == "REVOKED"


def test_a_suspended_credential_comes_back_and_goes_again_when_it_is_said(product: Product) -> None:
    """Suspend sets the bit, reinstate clears it, and each time everybody is told anew."""
    credential_id = issued(product, template=SUSPENDABLE)
    seen = []
    for verb in (SUSPEND, REINSTATE, SUSPEND, REINSTATE, SUSPEND, REVOKE):
        change(product, verb, credential_id)
        product.run(patience_seconds=5)
        seen.append((product.credential(credential_id).state, bit_of(product, credential_id)))
    assert seen == [
        ("suspended", True), ("issued", False), ("suspended", True), ("issued", False), ("suspended", True),
        ("revoked", True),
    ]  # fmt: skip
    told = ["suspended", "reinstated", "suspended", "reinstated", "suspended", "revoked"]
    assert mails(product, credential_id) == ["issued", *told]
    assert events(product, credential_id)[1:] == [f"credential.{kind}" for kind in told]
    assert served(product, credential_id)["credentialSubject"]["statusPurpose"] == "suspension"


def test_a_reinstated_credential_has_no_reason_when_it_is_in_force_again(product: Product) -> None:
    """Why it was suspended is in the audit log, not on a credential that is in force."""
    credential_id = issued(product, template=SUSPENDABLE)
    change(product, SUSPEND, credential_id, reason="under_review")
    assert product.credential(credential_id).status_reason == "under_review"
    changed = change(product, REINSTATE, credential_id)
    assert (changed.state, changed.reason) == ("issued", None)
    assert not change(product, REINSTATE, credential_id).is_new


@pytest.mark.parametrize("verb", [SUSPEND, REINSTATE])
def test_a_plain_credential_is_not_suspended_when_somebody_tries(product: Product, verb: object) -> None:
    """Its template chose revocation, and a revocation bit is never cleared: 409 says what can be done."""
    credential_id = issued(product)
    with pytest.raises(Problem, match=r"state_conflict.*revoked or superseded"):
        change(product, verb, credential_id)
    assert product.credential(credential_id).state == "issued"


def test_a_verb_is_refused_when_the_state_does_not_allow_it(product: Product) -> None:
    """Nothing is revoked before it is made, nothing comes back from a revocation, nobody else's is found."""
    waiting = product.request().credential_id
    with pytest.raises(Problem, match=r"state_conflict.*it is queued"):
        change(product, REVOKE, waiting)
    product.run()
    with pytest.raises(Problem, match="validation_failed"):
        change(product, REVOKE, waiting, reason="because I say so")
    revoked = issued(product, template=SUSPENDABLE)
    change(product, REVOKE, revoked)
    for verb in (SUSPEND, REINSTATE):
        with pytest.raises(Problem, match=r"state_conflict.*it is revoked"):
            change(product, verb, revoked)
    with pytest.raises(Problem, match="not_found"):
        change(product, REVOKE, "cred_00000000000000000000000000")


def test_the_corrected_one_is_issued_before_the_old_one_ends_when_it_is_superseded(
    product: Product,
) -> None:
    """Both verify; the old one is REPLACED and names the new one; one mail tells of it."""
    old = issued(product, external_id="s-1")
    accepted = correct(product, old, recipient_name="Ada King")
    assert product.credential(old).state == "issued"
    product.run_only("tasks.issuance.issue_credential")
    assert product.credential(old).state == "issued"
    product.run(patience_seconds=5)
    before, after = product.credential(old), product.credential(accepted.credential_id)
    assert (before.state, before.superseded_by, before.status_reason) == ("superseded", after.id, "replaced")
    assert (after.state, after.supersedes, after.recipient_name) == ("issued", old, "Ada King")
    assert (after.issued_on, after.fields, after.external_id) == (before.issued_on, before.fields, None)
    verdicts = [verifying.by_token(product.rt, row.token) for row in (before, after)]
    assert [found.judgement.verdict for found in verdicts if found] == ["REPLACED", "VALID"]
    assert (bit_of(product, old), bit_of(product, after.id)) == (True, False)
    assert mails(product, old) == ["issued"]
    assert mails(product, after.id) == ["superseded"]
    assert events(product, old) == ["credential.issued", "credential.superseded"]
    assert events(product, after.id) == ["credential.issued"]


def test_one_successor_comes_of_one_correction_when_it_is_asked_twice(product: Product) -> None:
    """The same correction is the same task, before and after it is issued; another one is a conflict."""
    old = issued(product)
    first = correct(product, old, recipient_name="Ada King")
    assert correct(product, old, recipient_name="Ada King").run_id == first.run_id
    product.run()
    again = correct(product, old, recipient_name="Ada King")
    assert (again.credential_id, again.is_new) == (first.credential_id, False)
    with pytest.raises(Problem, match=rf"state_conflict.*{first.credential_id}"):
        correct(product, old, recipient_name="Ada Byron")
    second = correct(product, first.credential_id, recipient_name="Ada Byron")
    product.run()
    assert product.credential(first.credential_id).superseded_by == second.credential_id


def test_nothing_is_superseded_when_the_correction_is_none_or_wrong(product: Product) -> None:
    """Wrong values are named as at admission; a correction that changes nothing is refused."""
    old = issued(product)
    with pytest.raises(Problem, match="nothing would differ"):
        correct(product, old)
    with pytest.raises(Problem) as refused:
        correct(product, old, recipient_email="ada@exmple", fields={"course": "", "grade": "A"})
    assert {error.code for error in refused.value.errors} == {"email_invalid", "field_required"}
    change(product, REVOKE, old)
    with pytest.raises(Problem, match=r"state_conflict.*it is revoked"):
        correct(product, old, recipient_name="Ada King")


def test_a_revocation_stands_when_the_successor_is_issued_after_it(product: Product) -> None:
    """A revocation is final: the old one stays revoked, and the corrected one is issued all the same."""
    old = issued(product)
    accepted = correct(product, old, recipient_name="Ada King")
    change(product, REVOKE, old)
    product.run(patience_seconds=5)
    assert product.credential(old).state == "revoked"
    assert product.credential(accepted.credential_id).state == "issued"
    assert mails(product, accepted.credential_id) == ["issued"]


def test_another_correction_may_be_asked_when_the_first_one_failed(product: Product) -> None:
    """A failed successor replaces nothing, and is not taken up again beside a second one."""
    old = issued(product)
    failed = correct(product, old, recipient_email="bad-data@test.invalid")
    product.run()
    assert product.credential(failed.credential_id).state == "failed"
    assert product.credential(old).state == "issued"
    second = correct(product, old, recipient_name="Ada King")
    with product.rt.database.transaction() as session:
        dead_letters.replay(session, dead_letters.Filter(run_ids=(str(failed.run_id),)))
    product.run()
    assert product.credential(old).superseded_by == second.credential_id
    assert product.credential(failed.credential_id).state == "failed"
    assert product.outcomes(str(failed.run_id)) == ["failure", "failure"]


@pytest.mark.parametrize(
    "point", ["status.moved", "status.before_commit", "list.signed", "list.before_commit"]
)
@pytest.mark.parametrize("name", VERBS)
def test_nothing_is_lost_or_doubled_when_the_process_dies_in_a_verb(
    product: Product, name: str, point: str
) -> None:
    """Dying at any point leaves one change, one event, one Message-ID, and the bit that the row says."""
    verb = VERBS[name]
    credential_id = issued(product, template=SUSPENDABLE)
    if verb is REINSTATE:
        change(product, SUSPEND, credential_id)
    product.run(patience_seconds=5)
    with FakeWebhook() as receiver:
        product.subscribe(receiver.url, verb.event_type)
        with crash_at(point):
            change(product, verb, credential_id)
            product.run(patience_seconds=5)
        change(product, verb, credential_id)  # the client repeats its request
        product.run(patience_seconds=120)
        hooks = list(receiver.history.requests)
    assert product.credential(credential_id).state == verb.target
    assert bit_of(product, credential_id) is (verb is not REINSTATE)
    assert len(hooks) == 1
    assert mails(product, credential_id).count(verb.email_kind) == 1
    assert events(product, credential_id).count(verb.event_type) == 1
    assert len({mail.message_id for mail in product.mailbox()}) == len(product.mailbox())
    assert {run.state for run in product.rows_of_work()} == {"SUCCESS"}


@pytest.mark.parametrize(
    "point",
    [
        "accept.before_commit", "leaf.before_commit", "leaf.after_commit", "log.extended", "log.signed",
        "status.moved", "log.before_commit", "log.after_commit", "list.signed", "list.before_commit",
    ],
)  # fmt: skip
def test_nobody_is_without_a_credential_when_the_process_dies_in_a_supersession(
    product: Product, point: str
) -> None:
    """Dying at any point leaves one successor, one end of the old one, and never a moment without either."""
    old = issued(product)
    product.run(patience_seconds=5)
    with crash_at(point):
        correct(product, old, recipient_name="Ada King")
        product.run(patience_seconds=5)
    rows = product.rows(tables.credentials)
    assert [row.state for row in rows if row.state == "issued"] == ["issued"]
    accepted = correct(product, old, recipient_name="Ada King")
    product.run(patience_seconds=120)
    before, after = (product.credential(one) for one in (old, accepted.credential_id))
    assert (before.state, before.superseded_by, after.state) == ("superseded", after.id, "issued")
    assert len(product.rows(tables.credentials)) == 2
    assert (bit_of(product, old), bit_of(product, after.id)) == (True, False)
    assert mails(product, after.id) == ["superseded"]
    assert events(product, old) == ["credential.issued", "credential.superseded"]
    assert lists_equal_rows(product)


def test_a_list_is_signed_at_once_and_then_once_a_second_when_it_changes_often(product: Product) -> None:
    """The first change is signed without waiting, what follows within the second is one more signature."""
    ids = [issued(product) for _ in range(4)]
    product.run(patience_seconds=5)
    product.time.move(60)
    number = product.credential(ids[0]).status_list_number
    before = _version(product, number)
    change(product, REVOKE, ids[0])
    product.run()
    assert (_version(product, number) - before, bit_of(product, ids[0])) == (1, True)
    for credential_id in ids[1:]:
        change(product, REVOKE, credential_id)
        product.run()
        assert _version(product, number) - before == 1
    product.run(patience_seconds=1)
    assert _version(product, number) - before == 2
    assert all(bit_of(product, credential_id) for credential_id in ids)


def test_no_revocation_is_lost_when_an_older_reading_is_signed_first(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever signs over a newer version of the list loses, and the list is signed once more."""
    credential_id = issued(product)
    product.run(patience_seconds=5)
    product.time.move(60)
    number = product.credential(credential_id).status_list_number
    signed = lists.vc.sign

    def slowly(*arguments: Any, **options: Any) -> Any:
        """Let another process sign the same list while this one does."""
        monkeypatch.setattr(lists.vc, "sign", signed)
        with product.rt.database.transaction() as session:
            version = _version(product, number)
            assert status_lists.record_signed(
                session, number, version, signed=b"{}", signed_at=product.time()
            )
        return signed(*arguments, **options)

    change(product, REVOKE, credential_id)
    monkeypatch.setattr(lists.vc, "sign", slowly)
    product.run()
    assert {"signed": False, "set": 1} in [run.result for run in product.runs_of(PUBLISH)]
    product.run(patience_seconds=2)
    assert bit_of(product, credential_id)


def test_a_list_is_signed_every_day_when_nothing_changes(product: Product) -> None:
    """A verifier sees a list of today, so a week without one means that the issuer is gone."""
    issued(product)
    product.run(patience_seconds=A_WEEK)
    (first, *_) = product.rows(tables.status_lists)
    assert first.version >= 7
    document = json.loads(first.signed)
    assert status_list.decode_list(document["credentialSubject"]["encodedList"])


def _version(product: Product, number: int) -> int:
    (row,) = product.rows(tables.status_lists, tables.status_lists.c.number == number)
    version: int = row.version
    return version
