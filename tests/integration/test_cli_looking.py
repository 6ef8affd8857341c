# SPDX-License-Identifier: Apache-2.0
"""Commands that show and repair: status, timeline, dead letters, mailbox, organisations, keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from conferral.cli import tasks
from conferral.reliable import status
from conferral.services import tenancy
from conferral.store.tables import audit_log, endpoints, mailbox
from conferral.web.api import wire
from support.command import Shell
from support.product import Product, product_on


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """Yield the product on SQLite, its clock beyond what commands write now."""
    with product_on("sqlite", tmp_path) as made:
        made.time.move_to(datetime.now(UTC) + timedelta(minutes=1))
        yield made


@pytest.fixture
def shell(product: Product) -> Shell:
    """Return a shell on the product's data directory."""
    return Shell(product.settings.data_dir, {})


def test_status_shows_leaders_queues_and_schedules_without_any_process(shell: Shell) -> None:
    """An installation that is down can still be looked at."""
    done = shell.run("status")
    assert done.code == 0, done.err
    assert "No `conferral up` runs on this data directory." in done.out
    for word in ("dispatcher", "beat", "high_priority", "low_priority", "retry_stuck", "never"):
        assert word in done.out
    kinds = {record["kind"] for record in shell.run("status", "--json").records}
    assert kinds == {"leader", "queue", "schedule"}


def test_status_shows_when_a_schedule_fired(product: Product, shell: Shell) -> None:
    """The last tick is read from the run that it promised."""
    from conferral.reliable.promises import promise

    with product.rt.database.transaction() as session:
        key = "tick:retry_stuck:2026-01-01T00:15:00Z"
        promise(session, "tasks.issuance.retry_stuck", [], key=key, subject="retry_stuck")
    product.run()
    (found,) = [one for one in shell.run("status", "--json").records if one.get("name") == "retry_stuck"]
    assert found["last_state"] == "SUCCESS"
    assert found["last_fired_at"] is not None


def test_a_task_has_the_keys_of_the_api(product: Product, shell: Shell) -> None:
    """What a script learns here it knows there."""
    accepted = product.request()
    product.run()
    done = shell.run("status", str(accepted.run_id), "--json")
    with product.rt.database.snapshot() as session:
        found = status.status_of(session, str(accepted.run_id))
    assert found is not None
    assert list(tasks.record_of(found)) == list(wire.task_status(found, possible_duplicate=False))
    assert done.records[0]["result"] == {"status": "issued", "credential_id": accepted.credential_id}
    assert "SUCCESS" in shell.run("status", str(accepted.run_id)).out
    assert shell.run("status", "0198").code == 5


def test_a_timeline_shows_every_attempt_with_its_evidence(product: Product, shell: Shell) -> None:
    """Who asks what happened gets the digests, the answer of the mail server and the Message-ID."""
    accepted = product.request()
    product.run()
    out = shell.run("timeline", accepted.credential_id).out
    assert "ISSUED  (test mode)" in out
    assert re.search(r"Issue +SUCCESS", out)
    assert re.search(r"E-mail +SUCCESS", out)
    assert f"<{accepted.credential_id}.issued.1@" in out
    assert product.credential(accepted.credential_id).pdf_sha256 in out
    head, *runs = shell.run("timeline", accepted.credential_id, "--json").records
    assert head["state"] == "issued"
    assert [run["attempts"][0]["outcome"] for run in runs] == ["success", "success"]
    assert shell.run("timeline", "cred_1").code == 5


def test_dead_letters_are_counted_shown_replayed_and_given_up(product: Product, shell: Shell) -> None:
    """A preview says how many; a replay does so many; what is given up is gone from the list."""
    for number in range(3):
        product.request(email=f"bounce+{number}@test.invalid")
    product.run()
    listed = shell.run("dead", "list", "--json").records
    assert [one["error"]["code"] for one in listed] == ["mailbox_unknown"] * 3
    assert "3 x E-mail, mailbox_unknown  The mailbox does not exist" in shell.run("dead", "list").out
    first = listed[0]["task_id"]
    assert shell.run("dead", "show", first, "--json").records[0]["attempts"][0]["outcome"] == "failure"
    preview = shell.run("dead", "replay", "--code", "mailbox_unknown", "--preview", "--json").records
    assert [one["count"] for one in preview] == [3]
    assert shell.run("dead", "replay", "--code", "smtp_unreachable").out == "0 replayed.\n"
    assert shell.run("dead", "replay", "--code", "mailbox_unknown").out == "3 replayed.\n"
    assert shell.run("dead", "list").out == "No dead letters.\n"
    product.run()
    assert shell.run("dead", "discard", first, "--json").records == [{"discarded": [first], "not_found": []}]
    assert shell.run("dead", "discard", first).code == 5
    assert shell.run("dead", "discard", "--all").out == "2 discarded.\n"
    actions = [row.action for row in product.rows(audit_log) if row.action.startswith("dead")]
    assert actions == ["dead_letter.replayed"] * 3 + ["dead_letter.discarded"] * 3


def test_nothing_is_replayed_or_discarded_when_nobody_said_which(product: Product, shell: Shell) -> None:
    """A bare command is a mistake, not a wish for everything."""
    product.request(email="bounce@test.invalid")
    product.run()
    assert shell.run("dead", "replay").code == 2
    assert shell.run("dead", "discard").code == 2
    assert len(shell.run("dead", "list", "--json").records) == 1
    assert shell.run("dead", "show", "nothing").code == 5


def test_dead_letters_of_one_organisation_leave_others_alone(product: Product, shell: Shell) -> None:
    """--org narrows."""
    product.request(email="bounce@test.invalid")
    product.run()
    assert shell.run("org", "create", "Other").code == 0
    assert shell.run("dead", "replay", "--all", "--org", "other").out == "0 replayed.\n"


def test_captured_mail_is_listed_read_and_printed_byte_for_byte(product: Product, shell: Shell) -> None:
    """What a recipient would see, and the very bytes."""
    product.request(recipient_name="Zoë Müller")
    product.run()
    (listed,) = shell.run("mailbox", "--json").records
    (row,) = product.rows(mailbox)
    assert listed["id"] == row.id
    assert "Congratulations, Zoë Müller" in shell.run("mailbox", row.id).out
    raw = shell.run("mailbox", row.id, "--raw").raw
    assert raw == row.source
    assert message_from_bytes(raw, policy=policy.default)["Message-ID"] == listed["message_id"]
    assert shell.run("mailbox", "--raw").code == 2
    assert shell.run("mailbox", "msg_1").code == 5
    assert shell.run("org", "create", "Other").code == 0
    assert shell.run("mailbox", "--org", "other").out == "No captured e-mails.\n"


def test_a_key_is_shown_once_works_and_stops_working_when_it_is_revoked(
    product: Product, shell: Shell
) -> None:
    """The text is printed alone, so that a script can keep it."""
    done = shell.run("keys", "create", "--scope", "credentials:read", "--name", "Script")
    key = done.out.strip()
    caller = tenancy.authenticate(product.rt, key)
    assert (caller.mode, set(caller.scopes)) == ("test", {"credentials:read"})
    listed = shell.run("keys", "list", "--json").records
    (made,) = [one for one in listed if one["name"] == "Script"]
    assert key not in json.dumps(listed)
    assert shell.run("keys", "create", "--live").out.startswith("conferral_live_")
    assert shell.run("keys", "revoke", made["id"]).code == 0
    assert shell.run("keys", "revoke", made["id"]).code == 5
    with pytest.raises(tenancy.Problem, match="key_invalid"):
        tenancy.authenticate(product.rt, key)


def test_organisations_are_made_listed_and_meant_by_id_or_slug(shell: Shell) -> None:
    """The oldest is the default; a taken name is a conflict."""
    (made,) = shell.run("org", "create", "Zürich Hochschule", "--json").records
    assert made["slug"] == "zurich-hochschule"
    assert [one["slug"] for one in shell.run("org", "list", "--json").records] == ["demo", made["slug"]]
    for named in (made["id"], made["slug"]):
        assert shell.run("keys", "list", "--org", named, "--json").records == []
    assert shell.run("org", "create", "Zürich Hochschule").code == 6
    assert shell.run("org", "create", "大学").code == 3


def test_endpoints_are_added_listed_and_removed(product: Product, shell: Shell) -> None:
    """The secret is printed alone and once."""
    done = shell.run("webhooks", "add", "http://127.0.0.1:9/hook", "--event", "credential.issued")
    assert done.out.startswith("whsec_")
    (listed,) = shell.run("webhooks", "list", "--json").records
    assert (listed["event_types"], listed["state"]) == (["credential.issued"], "enabled")
    assert "secret" not in listed
    assert shell.run("webhooks", "remove", listed["id"]).code == 0
    assert [row.state for row in product.rows(endpoints)] == ["disabled"]
    assert shell.run("webhooks", "remove", "whe_1").code == 5
    assert shell.run("webhooks", "add", "ftp://example.org").code == 3


def test_a_database_without_our_tables_is_named_with_its_cure(tmp_path: Path) -> None:
    """Somebody who has not started anything yet learns what to do."""
    done = Shell(tmp_path / "fresh", {}).run("org", "list")
    assert done.code == 8
    assert "conferral migrate" in done.err


def test_a_person_signs_in_with_the_password_that_was_shown_and_with_a_new_one(
    product: Product, shell: Shell
) -> None:
    """A reset ends the old password and every session; a second organisation keeps the password."""
    (made,) = shell.run("user", "create", "Dean@Example.org", "--role", "manager", "--json").records
    cookie = tenancy.sign_in(product.rt, "dean@example.org", made["password"]).cookie
    assert shell.run("user", "create", "dean@example.org").code == 6
    assert shell.run("user", "create", "dean").code == 3
    assert shell.run("org", "create", "Other").code == 0
    (again,) = shell.run("user", "create", "dean@example.org", "--org", "other", "--json").records
    assert (again["id"], again["password"]) == (made["id"], None)
    roles = {one["email"]: one["role"] for one in shell.run("user", "list", "--json").records}
    assert roles["dean@example.org"] == "manager"
    fresh = shell.run("user", "password", "dean@example.org").out.strip()
    assert tenancy.signed_in(product.rt, cookie) is None
    with pytest.raises(tenancy.Problem):
        tenancy.sign_in(product.rt, "dean@example.org", made["password"])
    assert tenancy.sign_in(product.rt, "dean@example.org", fresh)
    assert shell.run("user", "password", "nobody@example.org").code == 5
