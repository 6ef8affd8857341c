# SPDX-License-Identifier: Apache-2.0
"""What issuing promises, on SQLite and PostgreSQL alike: every effect once, whatever dies."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conferral.domain import canonical, checkpoint, credential_checks
from conferral.domain.problems import Problem
from conferral.reliable import dead_letters
from conferral.reliable.testing import crash_at
from conferral.services import batching, verifying
from conferral.services.admission import Wanted, find_template
from conferral.store import tables
from conferral.store.queries import bookkeeping
from support.fake_webhook import FakeWebhook
from support.product import A_WEEK, DATABASES, Product, product_on

ISSUE = "tasks.issuance.issue_credential"
EMAIL = "tasks.notifications.send_issuance_email"
WEBHOOK = "tasks.webhooks.post_event"

# Every place on the way of one credential where the process may die.
CRASH_POINTS = (
    "accept.before_commit", "claimed", "pdf.rendered", "pdf.written", "pdf.stored", "vc.signed",
    "vc.stored", "leaf.before_commit", "leaf.after_commit", "log.extended", "log.signed",
    "log.before_commit", "log.after_commit", "smtp.connected", "smtp.rcpt", "smtp.data", "smtp.dot",
    "smtp.accepted", "http.connected", "http.sent", "http.answered", "settle.before_commit",
    "settle.after_commit",
)  # fmt: skip
# Dying there leaves it unknown whether the peer accepted: the same bytes may come twice.
UNKNOWABLE = {"smtp.dot", "smtp.accepted", "http.sent", "http.answered", "settle.before_commit"}


@pytest.fixture(params=DATABASES)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Product]:
    """The product on each database."""
    with product_on(request.param, tmp_path) as built:
        yield built


def test_every_effect_happens_once_when_a_credential_is_issued(product: Product) -> None:
    """PDF, signed credential, log entry, one mail and one verified webhook come of one request."""
    with FakeWebhook() as receiver:
        endpoint = product.subscribe(receiver.url)
        accepted = product.request()
        product.run()
        (hook,) = receiver.history.requests
    row = product.credential(accepted.credential_id)
    assert row.state == "issued"
    final, stored = product.rt.blobs.get(row.pdf_sha256), product.rt.blobs.get(row.vc_sha256)
    assert hashlib.sha384(final[: row.base_length]).digest() == row.base_sha384
    document = canonical.read_document(stored)
    assert document["id"] == row.vc_id
    found = verifying.by_token(product.rt, row.token)
    assert found is not None
    assert found.judgement.verdict == "VALID"
    (mail,) = product.mailbox()
    assert mail.message_id == f"<{row.id}.issued.1@localhost>"
    assert hook.webhook_id.startswith("evt_")
    assert endpoint.secret.startswith("whsec_")


def test_the_log_proves_the_stored_bytes_when_credentials_are_in_it(product: Product) -> None:
    """Each credential's inclusion proof verifies against the log's key, and only for its own bytes."""
    ids = [product.request(f"p{number}@example.com").credential_id for number in range(5)]
    product.run()
    (log,) = product.rows(tables.logs)
    key = checkpoint.VerifierKey(log.origin, log.public_key)
    for credential_id in ids:
        row = product.credential(credential_id)
        proof = verifying.tlog_proof(product.rt, row.token)
        assert proof is not None
        stored = product.rt.blobs.get(row.vc_sha256)
        assert credential_checks.check_anchor(stored, proof, [key]).ok is True
        assert credential_checks.check_anchor(stored + b" ", proof, [key]).ok is False


def test_one_credential_comes_of_one_external_id_when_it_is_sent_twice(product: Product) -> None:
    """The same external_id is the same task; with other content it is a conflict."""
    first = product.request(external_id="s-1")
    again = product.request(external_id="s-1")
    assert (again.credential_id, again.run_id) == (first.credential_id, first.run_id)
    assert not again.is_new
    with pytest.raises(Problem, match="external_id_conflict"):
        product.request(external_id="s-1", recipient_name="Somebody Else")


def test_every_wrong_value_is_named_at_once_when_data_is_bad(product: Product) -> None:
    """Bad data never becomes a run: each fault is answered with its place and code."""
    with pytest.raises(Problem) as refused:
        product.request(
            email="jane@exmple",
            recipient_name="Jane\r\nBcc: x",
            fields={"grade": "A", "colour": "red", "completed_on": "31/02/2026"},
            issued_on="2026-02-30",
        )
    found = {(error.pointer, error.code) for error in refused.value.errors}
    assert found == {
        ("#/recipient/email", "email_invalid"),
        ("#/recipient/name", "field_invalid"),
        ("#/fields/course", "field_required"),
        ("#/fields/colour", "field_unknown"),
        ("#/fields/completed_on", "date_invalid"),
        ("#/issued_on", "date_invalid"),
    }
    assert product.rows(tables.credentials) == []


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_nothing_is_lost_or_doubled_when_the_process_dies(product: Product, point: str) -> None:
    """Dying at any point leaves one credential, one Message-ID, one webhook-id."""
    with FakeWebhook() as receiver:
        product.subscribe(receiver.url)
        with crash_at(point):
            product.request(external_id="s-1")
            product.run()
        accepted = product.request(external_id="s-1")  # the client repeats its request
        product.run(patience_seconds=120)
        hooks = list(receiver.history.requests)
    row = product.credential(accepted.credential_id)
    assert row.state == "issued"
    assert len(product.rows(tables.leaves)) == 1
    messages, mails = {mail.message_id for mail in product.mailbox()}, product.mailbox()
    assert len(messages) == 1
    assert len({hook.webhook_id for hook in hooks}) == 1
    assert len({mail.source for mail in mails}) == 1
    if point not in UNKNOWABLE:
        assert (len(mails), len(hooks)) == (1, 1)
    assert {run.state for run in product.rows_of_work()} == {"SUCCESS"}


def test_a_batch_is_expanded_once_when_the_process_dies_between_chunks(product: Product) -> None:
    """Each row becomes one credential with one run, however often the expansion is repeated."""
    with product.rt.database.transaction() as session:
        template = find_template(session, product.caller.organisation_id, "diploma")
        rows = [
            batching.Row(
                number,
                Wanted(
                    template="diploma",
                    recipient_name=f"Person {number}",
                    recipient_email=f"p{number}@example.com",
                    fields={"course": "Databases"},
                ),
            )
            for number in range(1, 1201)
        ]
        batching.create(product.rt, session, product.caller, template, rows, name="class")
    with crash_at("expand.chunk_committed", nth=2):
        product.run_only("tasks.issuance.expand_batch")
    product.time.move(31)
    product.run_only("tasks.issuance.expand_batch")
    numbers = [row.batch_row for row in product.rows(tables.credentials)]
    assert sorted(numbers) == list(range(1, 1201))
    assert len(product.runs_of(ISSUE)) == 1200
    assert len({row.status_index for row in product.rows(tables.credentials)}) == 1200


def test_no_status_index_is_given_twice_when_many_ask_at_once(product: Product) -> None:
    """Eight threads admit credentials together; every index is another one."""
    faults: list[Exception] = []

    def admit(thread: int) -> None:
        try:
            for number in range(5):
                product.request(f"t{thread}-{number}@example.com")
        except Exception as fault:  # noqa: BLE001 - reported by the assertion below
            faults.append(fault)

    threads = [threading.Thread(target=admit, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    places = [(row.status_list_number, row.status_index) for row in product.rows(tables.credentials)]
    assert len(places) == len(set(places)) == 40


def test_magic_addresses_show_each_state_when_they_are_used(product: Product) -> None:
    """Every failure an integrator must handle can be made to happen on purpose in test mode."""
    chain = product.request("chain-timeout@test.invalid")
    bad = product.request("bad-data+x@test.invalid")
    bounce = product.request("bounce@test.invalid")
    timeout = product.request("smtp-timeout@test.invalid")
    product.run(patience_seconds=A_WEEK)
    assert product.outcomes(str(chain.run_id)) == ["retry", "retry", "success"]
    assert product.credential(chain.credential_id).state == "issued"
    failed = product.credential(bad.credential_id)
    assert (failed.state, failed.failure_code) == ("failed", "credential_data_invalid")
    assert product.outcomes(str(bad.run_id)) == ["failure"]
    assert product.credential(bounce.credential_id).state == "issued"
    by_credential = {
        row.credential_id: row for row in product.rows(tables.deliveries) if row.channel == "email"
    }
    assert by_credential[bounce.credential_id].failure_code == "mailbox_unknown"
    assert by_credential[timeout.credential_id].state == "sent"
    assert not by_credential[timeout.credential_id].possible_duplicate
    assert product.outcomes(by_credential[timeout.credential_id].run_id) == ["retry", "retry", "success"]


def test_a_repeated_mail_is_said_to_be_one_when_the_record_was_lost(product: Product) -> None:
    """Identical bytes go again under the same Message-ID, and the delivery says possible duplicate."""
    product.request("crash-after-email@test.invalid")
    product.run(patience_seconds=120)
    first, second = product.mailbox()
    assert first.source == second.source
    (delivery,) = product.rows(tables.deliveries)
    assert delivery.possible_duplicate
    assert product.outcomes(delivery.run_id) == ["lost", "success"]


def test_a_run_is_parked_when_three_workers_died_of_it(product: Product) -> None:
    """Poison ends as a dead letter with its reason, and the credential says so."""
    accepted = product.request("poison@test.invalid")
    product.run(patience_seconds=600)
    assert product.outcomes(str(accepted.run_id)) == ["lost", "lost", "lost"]
    row = product.credential(accepted.credential_id)
    assert (row.state, row.failure_code) == ("failed", "poison")


def test_nobody_is_mailed_again_when_the_mailbox_does_not_exist(product: Product) -> None:
    """A refused mailbox is suppressed from then on; the next credential is issued all the same."""
    product.request("bounce@test.invalid")
    product.run()
    second = product.request("bounce@test.invalid", fields={"course": "Another"})
    product.run()
    assert product.credential(second.credential_id).state == "issued"
    codes = [row.failure_code for row in product.rows(tables.deliveries)]
    assert sorted(codes) == ["mailbox_unknown", "recipient_suppressed"]


def test_the_mailbox_is_tried_again_when_a_person_replays_the_mail(product: Product) -> None:
    """A replay says that the mailbox exists by now: the server is asked again, not our list."""
    product.request("bounce@test.invalid")
    product.run()
    (mail,) = product.runs_of(EMAIL)
    with product.rt.database.transaction() as session:
        replayed = dead_letters.replay(session, dead_letters.Filter(code="mailbox_unknown"))
    product.run()
    assert replayed == [mail.id]
    assert product.outcomes(mail.id) == ["failure", "failure"]
    (again,) = product.runs_of(EMAIL)
    assert again.error_code == "mailbox_unknown"


def test_a_repeated_webhook_is_said_to_be_one_when_the_record_was_lost(product: Product) -> None:
    """The same event goes again under the same webhook-id, and the delivery says possible duplicate."""
    with FakeWebhook() as receiver:
        product.subscribe(receiver.url)
        product.request()
        with crash_at("http.answered"):
            product.run()
        product.run(patience_seconds=120)
        first, second = receiver.history.requests
    assert first.webhook_id == second.webhook_id
    (delivery,) = [row for row in product.rows(tables.deliveries) if row.channel == "webhook"]
    assert delivery.possible_duplicate


def test_the_daily_report_is_stored_and_mailed_once_when_it_is_made_twice(product: Product) -> None:
    """Yesterday's figures are one row and one mail to each owner, however often the slot fires."""
    product.request()
    product.run()
    product.time.move(86_400)
    for _ in range(2):
        product.promise("tasks.reports.generate_daily_issuance_report")
        product.run()
    with product.rt.database.snapshot() as session:
        (report,) = bookkeeping.reports_of(session, product.caller.organisation_id)
    assert report.content["figures"]["issued"] == 1
    assert report.content["figures"]["emails_sent"] == 1
    assert [mail.recipient for mail in product.mailbox()].count("admin@demo.example") == 1
