# SPDX-License-Identifier: Apache-2.0
"""The API as an integrator meets it, on both databases; the tasks are executed in this process."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conferral.reliable.promises import promise
from conferral.store import tables
from support.product import DATABASES, product_on
from support.web import ISSUE, Web, body, web_of

STATUS_KEYS = {
    "task_id", "task", "state", "waiting_for", "result", "error", "retry_count", "snooze_count",
    "next_retry_at",
    "possible_duplicate", "credential_id", "queued_at", "started_at", "finished_at",
}  # fmt: skip


@pytest.fixture(params=DATABASES)
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Web]:
    """Yield the application on a database."""
    with product_on(request.param, tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


def status(web: Web, task_id: str, query: str = "") -> dict[str, Any]:
    """Return the status of a task."""
    answer = web.get(f"/tasks/{task_id}/status{query}")
    assert answer.status_code == 200, answer.json
    return dict(answer.json)


def test_a_credential_is_accepted_and_followed_to_its_end(web: Web) -> None:
    """202 with exactly four members while Redis is away; PENDING, then SUCCESS with the result."""
    answer = web.post(ISSUE, body())
    assert answer.status_code == 202
    assert set(answer.json) == {"task_id", "status", "credential_id", "links"}
    task_id = answer.json["task_id"]
    assert answer.json["status"] == "queued"
    assert answer.headers["Location"] == f"/tasks/{task_id}/status"
    assert answer.headers["Retry-After"] == "2"
    before = status(web, task_id)
    assert set(before) == STATUS_KEYS
    assert (before["state"], before["result"], before["started_at"]) == ("PENDING", None, None)
    web.product.run()
    after = status(web, task_id)
    assert after["state"] == "SUCCESS"
    assert after["result"] == {"status": "issued", "credential_id": answer.json["credential_id"]}
    assert after["finished_at"].endswith("Z")
    assert web.get(f"/v1/tasks/{task_id}/status").json == after


def test_retries_are_counted_and_the_next_one_is_announced(web: Web) -> None:
    """The first RETRY shows 1; no answer fails while a task is being tried again."""
    task_id = web.post(ISSUE, body("chain-timeout@test.invalid")).json["task_id"]
    web.product.run()
    first = status(web, task_id)
    assert (first["state"], first["retry_count"], first["error"]["code"]) == ("RETRY", 1, "anchor_timeout")
    assert first["next_retry_at"] is not None
    web.product.run(patience_seconds=600)
    last = status(web, task_id)
    assert (last["state"], last["retry_count"], last["error"], last["next_retry_at"]) == (
        "SUCCESS", 2, None, None,
    )  # fmt: skip


def test_a_failure_says_its_code(web: Web) -> None:
    """And the credential says it, too."""
    answer = web.post(ISSUE, body("bad-data@test.invalid")).json
    web.product.run()
    found = status(web, answer["task_id"])
    assert (found["state"], found["error"]["code"]) == ("FAILURE", "credential_data_invalid")
    shown = web.get(f"/v1/credentials/{answer['credential_id']}").json
    assert (shown["state"], shown["error"]["code"]) == ("failed", "credential_data_invalid")


def test_a_possible_duplicate_is_said(web: Web) -> None:
    """An e-mail whose record was lost went out twice, with one identity."""
    answer = web.post(ISSUE, body("crash-after-email@test.invalid")).json
    web.product.run(patience_seconds=600)
    timeline = web.get(f"/v1/credentials/{answer['credential_id']}/timeline").json["data"]
    (mail,) = (run for run in timeline if run["task"].endswith("send_issuance_email"))
    assert mail["possible_duplicate"] is True
    assert [one["outcome"] for one in mail["attempts"]] == ["lost", "success"]
    assert status(web, mail["task_id"])["possible_duplicate"] is True


def test_a_repeated_request_is_answered_and_not_done_again(web: Web) -> None:
    """Same key and body: the stored answer, byte for byte, by whichever of the two addresses."""
    first = web.post(ISSUE, body(), Idempotency_Key="k1")
    again = web.post(f"/v1{ISSUE}", body(), Idempotency_Key='"k1"')
    assert (again.status_code, again.data) == (first.status_code, first.data)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    other = web.post(ISSUE, body("bob@example.com"), Idempotency_Key="k1")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")
    assert len(web.product.rows(tables.credentials)) == 1


def test_many_identical_requests_at_once_make_one_credential(web: Web) -> None:
    """Whoever comes second gets the first one's answer, or is told to come back."""
    web.key()
    answers: list[Any] = []

    def ask() -> None:
        answers.append(web.post(ISSUE, body(), Idempotency_Key="at-once"))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) <= {202, 409}
    assert codes[202] >= 1
    assert len({answer.data for answer in answers if answer.status_code == 202}) == 1
    assert len(web.product.rows(tables.credentials)) == 1


def test_a_request_that_was_refused_may_be_repeated_with_the_same_key(web: Web) -> None:
    """What is rolled back stores nothing."""
    wrong = web.post(ISSUE, body("no address"), Idempotency_Key="k2")
    assert wrong.status_code == 422
    assert web.post(ISSUE, body(), Idempotency_Key="k2").status_code == 202


def test_the_same_external_id_is_the_same_credential(web: Web) -> None:
    """With other content it is a conflict."""
    first = web.post(ISSUE, body(external_id="sis-1")).json
    again = web.post(ISSUE, body(external_id="sis-1"))
    assert again.status_code == 202
    assert again.json["task_id"] == first["task_id"]
    web.product.run()
    assert web.post(ISSUE, body(external_id="sis-1")).json["status"] == "issued"
    other = web.post(ISSUE, body("bob@example.com", external_id="sis-1"))
    assert (other.status_code, other.json["code"]) == (409, "external_id_conflict")


def test_a_credential_made_without_issuing_is_issued_by_its_id(web: Web) -> None:
    """201 without a task; then one run, however often it is asked for."""
    made = web.post("/v1/credentials", body(issue=False))
    assert (made.status_code, made.json["task_id"]) == (201, None)
    asked = {"credential_id": made.json["credential_id"]}
    first, again = web.post(ISSUE, asked), web.post(ISSUE, asked)
    assert first.status_code == again.status_code == 202
    assert first.json["task_id"] == again.json["task_id"] is not None


def test_what_belongs_to_somebody_else_is_not_found(web: Web) -> None:
    """Another organisation's and the other mode's: 404, never 403."""
    web.post("/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/hook"})
    made = web.post(ISSUE, body()).json
    batch = web.post("/v1/batches", {"template_id": "diploma", "rows": [row()]}, Idempotency_Key="b").json
    web.product.run()
    message = web.get("/v1/test/mailbox").json["data"][0]["id"]
    endpoint = web.get("/v1/webhook-endpoints").json["data"][0]["id"]
    paths = [
        f"/tasks/{made['task_id']}/status",
        f"/v1/credentials/{made['credential_id']}",
        f"/v1/credentials/{made['credential_id']}/timeline",
        f"/v1/credentials/{made['credential_id']}/pdf",
        f"/v1/credentials/{made['credential_id']}/vc.json",
        f"/v1/credentials/{made['credential_id']}/proof",
        f"/v1/batches/{batch['batch_id']}",
        f"/v1/test/mailbox/{message}",
        f"/v1/webhook-endpoints/{endpoint}",
    ]
    foreign = web.key(organisation_id=web.other_organisation())
    live = web.key(mode="live")
    for path in paths:
        assert web.get(path).status_code == 200, path
        assert web.client.get(path, headers=foreign).status_code == 404, path
        assert web.client.get(path, headers=live).status_code == 404, path
    stolen = web.client.post(ISSUE, json={"credential_id": made["credential_id"]}, headers=foreign)
    assert stolen.status_code == 404
    for path in ("/v1/credentials", "/v1/batches", "/v1/events", "/v1/test/mailbox"):
        assert web.client.get(path, headers=foreign).json["data"] == []


def test_files_of_a_credential_are_what_was_signed(web: Web) -> None:
    """PDF, credential and proof; 409 while there is nothing yet."""
    made = web.post(ISSUE, body()).json["credential_id"]
    early = web.get(f"/v1/credentials/{made}/pdf")
    assert (early.status_code, early.json["code"]) == (409, "state_conflict")
    web.product.run()
    pdf = web.get(f"/v1/credentials/{made}/pdf")
    assert pdf.mimetype == "application/pdf"
    assert pdf.data.startswith(b"%PDF-")
    vc = web.get(f"/v1/credentials/{made}/vc.json")
    signed = json.loads(vc.data)
    assert (vc.mimetype, signed["proof"]["cryptosuite"]) == ("application/vc", "eddsa-rdfc-2022")
    assert vc.data in pdf.data
    proof = web.get(f"/v1/credentials/{made}/proof")
    assert proof.get_data(as_text=True).startswith("c2sp.org/tlog-proof@v1\n")


def row(name: str = "Ada Lovelace", email: str = "ada@example.com") -> dict[str, Any]:
    """Return a row of a batch."""
    return {"recipient": {"name": name, "email": email}, "fields": {"course": "Statistics"}}


def test_a_batch_issues_every_row_and_counts_them(web: Web) -> None:
    """One request, one credential for each row; the counts are absolute."""
    rows = [row(f"Student {number}", f"s{number}@example.com") for number in range(5)]
    document = {"template_id": "diploma", "name": "Class of 2026", "rows": rows}
    keyless = web.post("/v1/batches", document)
    assert (keyless.status_code, keyless.json["code"]) == (400, "idempotency_key_required")
    made = web.post("/v1/batches", document, Idempotency_Key="class")
    assert made.status_code == 202
    assert web.post("/v1/batches", document, Idempotency_Key="class").json == made.json
    web.product.run(patience_seconds=60)
    shown = web.get(made.headers["Location"]).json
    assert (shown["status"], shown["total"], shown["credentials"]) == ("completed", 5, {"issued": 5})
    assert shown["tasks"]["send_issuance_email"] == {"SUCCESS": 5}
    listed = web.get(f"/v1/credentials?batch_id={made.json['batch_id']}").json["data"]
    assert len(listed) == 5


def test_every_wrong_row_of_a_batch_is_named(web: Web) -> None:
    """All at once, by pointer; nothing is created."""
    rows = [row(), row(email="jane@exmple"), {**row(), "fields": {}}]
    answer = web.post("/v1/batches", {"template_id": "diploma", "rows": rows}, Idempotency_Key="w")
    assert answer.status_code == 422
    assert [(one["pointer"], one["code"]) for one in answer.json["errors"]] == [
        ("#/rows/1/recipient/email", "email_invalid"),
        ("#/rows/2/fields/course", "field_required"),
    ]
    assert web.get("/v1/batches").json["data"] == []


def test_pages_hold_every_credential_once(web: Web) -> None:
    """Also those that were made in the same instant."""
    made = {web.post(ISSUE, body(f"p{number}@example.com")).json["credential_id"] for number in range(7)}
    seen: list[str] = []
    path: str | None = "/v1/credentials?limit=3"
    while path:
        page = web.get(path).json
        seen += [one["id"] for one in page["data"]]
        path = f"/v1/credentials?limit=3&cursor={page['next_cursor']}" if page["has_more"] else None
    assert len(seen) == 7
    assert set(seen) == made


def test_credentials_are_found_by_what_people_know_of_them(web: Web) -> None:
    """Part of a name or address in any case, a state, an id of theirs; wildcards are letters."""
    web.post(ISSUE, body("ada@example.com", external_id="sis-7"))
    web.post(ISSUE, {**body(), "recipient": {"name": "Zoë 100%", "email": "zoe@example.com"}})
    web.product.run()

    def found(query: str) -> int:
        return len(web.get(f"/v1/credentials?{query}").json["data"])

    assert found("q=LOVE") == 1
    assert found("q=zoe@") == 1
    assert found("q=%25") == 1
    assert found("q=_") == 0
    assert found("external_id=sis-7") == 1
    assert (found("state=issued"), found("state=failed")) == (2, 0)
    assert (found("task_state=SUCCESS"), found("task_state=STARTED")) == (2, 0)
    assert found("updated_since=2099-01-01T00:00:00Z") == 0


def test_events_are_followed_with_the_cursor_of_the_last_answer(web: Web) -> None:
    """Oldest first; at the end the cursor stays, and brings what happens next."""
    web.post(ISSUE, body())
    web.product.run()
    first = web.get("/v1/events").json
    assert [one["type"] for one in first["data"]] == ["credential.issued"]
    nothing = web.get(f"/v1/events?cursor={first['next_cursor']}").json
    assert (nothing["data"], nothing["next_cursor"]) == ([], first["next_cursor"])
    web.post(ISSUE, body("bob@example.com"))
    web.product.run()
    more = web.get(f"/v1/events?cursor={nothing['next_cursor']}").json
    assert len(more["data"]) == 1


def test_a_webhook_secret_is_shown_once_and_stored_nowhere(web: Web) -> None:
    """Also when the request is repeated with its Idempotency-Key."""
    document = {"url": "http://127.0.0.1:9/hook", "event_types": ["credential.issued"]}
    made = web.post("/v1/webhook-endpoints", document, Idempotency_Key="e")
    assert made.status_code == 201
    secret = made.json["secret"]
    assert secret.startswith("whsec_")
    assert web.post("/v1/webhook-endpoints", document, Idempotency_Key="e").json["secret"] is None
    stored = [bytes(kept.body) for kept in web.product.rows(tables.idempotency_keys)]
    assert not any(secret.encode() in kept for kept in stored)
    path = f"/v1/webhook-endpoints/{made.json['id']}"
    assert secret not in web.get(path).get_data(as_text=True)
    assert web.client.delete(path, headers=web.key()).status_code == 204
    assert web.get(path).json["state"] == "disabled"


def test_a_long_poll_ends_when_the_task_ends(web: Web) -> None:
    """An ended task is answered at once, and so is one that will be long."""
    task_id = web.post(ISSUE, body()).json["task_id"]
    assert status(web, task_id, "?wait=0.2")["state"] == "PENDING"
    web.product.run()
    assert status(web, task_id, "?wait=25")["state"] == "SUCCESS"
    assert web.get(f"/tasks/{task_id}/status?wait=26").status_code == 422


def test_a_run_about_nothing_of_ours_is_shown_to_its_organisation_only(web: Web) -> None:
    """A report's e-mail is the organisation's, maintenance the operators', the rest nobody's."""
    rt = web.product.rt
    with rt.database.transaction() as session:
        mail = "tasks.notifications.send_report_email"
        tenant = web.product.caller.organisation_id
        mine = promise(session, mail, ["dlv_1"], subject="rpt_1", tenant=tenant)
        other = promise(session, mail, ["dlv_2"], subject="rpt_2", tenant="org_other")
        nobodys = promise(session, "tasks.cleanup.purge_expired_sessions", [])
    assert status(web, mine)["state"] == "PENDING"
    assert web.get(f"/tasks/{other}/status").status_code == 404
    assert web.get(f"/tasks/{nobodys}/status", "credentials:read").status_code == 404
    assert web.get(f"/tasks/{nobodys}/status", "credentials:read", "ops:read").status_code == 200


def test_an_unknown_task_is_not_found_and_an_old_one_is_gone(web: Web) -> None:
    """Maintenance runs are kept 30 days; an id tells when it was made."""

    def answered(made: datetime) -> tuple[int, str]:
        stamp = f"{int(made.timestamp() * 1000):012x}"
        task_id = f"{stamp[:8]}-{stamp[8:]}-7000-8000-{0:012x}"
        answer = web.get(f"/tasks/{task_id}/status")
        return answer.status_code, answer.json["code"]

    now = web.product.time()
    assert answered(now - timedelta(days=31)) == (410, "task_purged")
    assert answered(now - timedelta(days=29)) == (404, "not_found")
    assert web.get("/tasks/5b9a4c0e-0000-4000-8000-000000000000/status").status_code == 404
