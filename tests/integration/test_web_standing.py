# SPDX-License-Identifier: Apache-2.0
"""Revoke, suspend, reinstate, supersede as a program and as a person does it; and the list that is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conferral.domain import status_list
from conferral.services.status_lists import PUBLISH_TASK
from conferral.store import tables
from support.product import DATABASES, product_on
from support.statuses import SUSPENDABLE, issued, issued_rows, suspendable_template
from support.web import Web, web_of, words


@pytest.fixture(params=DATABASES)
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Web]:
    """Yield the application on each database, with a template of each purpose."""
    with product_on(request.param, tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        suspendable_template(product)
        product.run()
        yield web_of(product)


def say(
    web: Web, credential_id: str, verb: str, document: dict[str, Any] | None = None, **headers: str
) -> Any:
    """Say a verb to a credential."""
    return web.post(f"/v1/credentials/{credential_id}/{verb}", document or {}, **headers)


def test_a_revocation_is_answered_with_its_tasks_and_seen_everywhere(web: Web) -> None:
    """202 with the e-mail's task; resource and page say so; said again it is the same answer."""
    credential_id = issued(web.product)
    answer = say(web, credential_id, "revoke", {"reason": "misconduct"})
    assert answer.status_code == 202
    assert (answer.json["status"], answer.json["reason"]) == ("revoked", "misconduct")
    (task_id,) = answer.json["task_ids"]
    assert say(web, credential_id, "revoke").json == answer.json
    web.product.run(patience_seconds=5)
    shown = web.get(f"/v1/credentials/{credential_id}").json
    assert (shown["state"], shown["status_reason"]) == ("revoked", "misconduct")
    assert shown["status_changed_at"] == answer.json["changed_at"]
    assert web.get(f"/tasks/{task_id}/status").json["state"] == "SUCCESS"
    page = web.client.get(
        f"/c/{web.product.credential(credential_id).token}", headers={"Accept": "text/html"}
    )
    assert "Revoked" in words(page.get_data(as_text=True))


def test_the_list_is_served_as_verifiers_and_caches_want_it(web: Web) -> None:
    """application/vc, readable from everywhere, five minutes in caches, 304 by its ETag until it changes."""
    row = web.product.credential(issued(web.product))
    web.product.run(patience_seconds=5)
    where = f"/status/{row.status_list_number}"
    first = web.client.get(where)
    assert (first.status_code, first.mimetype) == (200, "application/vc")
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    assert "max-age=300" in first.headers["Cache-Control"]
    tag = {"If-None-Match": first.headers["ETag"]}
    assert web.client.get(where, headers=tag).status_code == 304
    web.product.time.move(60)
    say(web, row.id, "revoke")
    web.product.run(patience_seconds=2)
    second = web.client.get(where, headers=tag)
    assert second.status_code == 200
    encoded = json.loads(second.get_data())["credentialSubject"]["encodedList"]
    assert status_list.is_set(status_list.decode_list(encoded), row.status_index)


def test_what_cannot_be_done_is_a_problem_that_says_why(web: Web) -> None:
    """409 for a plain template and a wrong state, 422 for a reason that is none, 404 for somebody else's."""
    credential_id = issued(web.product)
    for verb in ("suspend", "reinstate"):
        answer = say(web, credential_id, verb)
        assert (answer.status_code, answer.json["code"]) == (409, "state_conflict")
    answer = say(web, credential_id, "revoke", {"reason": "because"})
    assert (answer.status_code, answer.json["code"]) == (422, "validation_failed")
    assert say(web, "cred_00000000000000000000000000", "revoke").status_code == 404
    other = web.key("credentials:write", organisation_id=web.other_organisation())
    assert (
        web.client.post(f"/v1/credentials/{credential_id}/revoke", json={}, headers=other).status_code == 404
    )
    reader = web.key("credentials:read")
    assert (
        web.client.post(f"/v1/credentials/{credential_id}/revoke", json={}, headers=reader).status_code == 403
    )
    assert web.product.credential(credential_id).state == "issued"


def test_a_suspension_is_taken_back_over_the_api(web: Web) -> None:
    """Suspend and reinstate answer with the state that is."""
    credential_id = issued(web.product, template=SUSPENDABLE)
    assert say(web, credential_id, "suspend", {"reason": "under_review"}).json["status"] == "suspended"
    answer = say(web, credential_id, "reinstate").json
    assert (answer["status"], answer["reason"]) == ("issued", None)


def test_a_corrected_credential_replaces_the_old_one_over_the_api(web: Web) -> None:
    """202 with the task of the corrected one; a repeated request with its key is the same answer."""
    old = issued(web.product)
    wanted = {"changes": {"recipient": {"name": "Ada King"}, "fields": {"course": "Analytical Engines"}}}
    answer = say(web, old, "supersede", wanted, Idempotency_Key="once")
    assert answer.status_code == 202
    again = say(web, old, "supersede", wanted, Idempotency_Key="once")
    assert (again.json, again.headers["Idempotency-Replayed"]) == (answer.json, "true")
    web.product.run(patience_seconds=5)
    before = web.get(f"/v1/credentials/{old}").json
    after = web.get(f"/v1/credentials/{answer.json['credential_id']}").json
    assert (before["state"], before["superseded_by"]) == ("superseded", after["id"])
    assert (after["state"], after["supersedes"]) == ("issued", old)
    assert after["recipient"] == {**before["recipient"], "name": "Ada King"}
    assert say(web, old, "supersede", {"changes": {"colour": "red"}}).status_code == 422


def test_a_batch_is_counted_before_it_is_revoked(web: Web) -> None:
    """`?preview=true` counts and changes nothing; then 202 with the task that does it."""
    issued_rows(web.product, 3, batch=True)
    (batch,) = web.product.rows(tables.batches)
    where = f"/v1/batches/{batch.id}/revoke"
    preview = web.post(f"{where}?preview=true", {})
    assert (preview.status_code, preview.json["affected"]) == (200, 3)
    assert {row.state for row in web.product.rows(tables.credentials)} == {"issued"}
    answer = web.post(where, {"reason": "issued_in_error"})
    assert (answer.status_code, answer.json["affected"]) == (202, 3)
    web.product.run_only("tasks.issuance.change_batch")
    assert {row.state for row in web.product.rows(tables.credentials)} == {"revoked"}
    assert web.post(where, {}).json == {
        "batch_id": batch.id,
        "affected": 0,
        "others": {"revoked": 3},
        "task_id": None,
    }


def test_a_person_revokes_after_reading_what_it_does(web: Web) -> None:
    """The button leads to a page that says it; a second form does it; a viewer only reads."""
    credential_id = issued(web.product)
    where = f"/console/credentials/{credential_id}"
    console = web.signed_in()
    assert f"{where}/change/revoke" in console.page(where)
    assert f"{where}/change/suspend" not in console.page(where)
    assert "withdrawn for good" in words(console.page(f"{where}/change/revoke"))
    assert console.submit(f"{where}/change/revoke", {"reason": "misconduct"}).status_code == 302
    row = web.product.credential(credential_id)
    assert (row.state, row.status_reason) == ("revoked", "misconduct")
    assert "Misconduct" in words(console.page(where))
    (line,) = web.product.rows(tables.audit_log, tables.audit_log.c.subject == credential_id)
    assert line.actor.startswith("user:usr_")
    assert "This cannot be done" in words(console.page(f"{where}/change/suspend"))
    viewer = web.signed_in("viewer")
    other = issued(web.product)
    assert "change/revoke" not in viewer.page(f"/console/credentials/{other}")
    assert viewer.submit(f"/console/credentials/{other}/change/revoke", {}).status_code == 403
    assert web.product.credential(other).state == "issued"


def test_a_person_corrects_a_name_in_the_console(web: Web) -> None:
    """The form holds what the credential says; wrong values are shown beside what was typed."""
    old = issued(web.product)
    where = f"/console/credentials/{old}/supersede"
    console = web.signed_in()
    assert 'value="Ada Lovelace"' in console.page(where)
    form = {
        "name": "Ada King", "email": "ada@example.com", "locale": "en", "field.course": "Applied Statistics",
        "issued_on": "2026-01-01", "expires_on": "",
    }  # fmt: skip
    wrong = console.submit(where, {**form, "email": "ada@exmple"})
    assert wrong.status_code == 422
    assert 'value="ada@exmple"' in wrong.get_data(as_text=True)
    answer = console.submit(where, form)
    assert answer.status_code == 302
    web.product.run(patience_seconds=5)
    assert web.product.credential(old).state == "superseded"
    assert "Replaces" in words(console.page(answer.headers["Location"]))
    assert "The corrected one" in words(console.page(f"/console/credentials/{old}"))


def test_a_person_revokes_a_batch_after_reading_how_many(web: Web) -> None:
    """The page counts; the second form promises the work."""
    issued_rows(web.product, 3, batch=True)
    web.product.run_only(PUBLISH_TASK)
    (batch,) = web.product.rows(tables.batches)
    where = f"/console/batches/{batch.id}"
    console = web.signed_in("manager")
    assert f"{where}/change/revoke" in console.page(where)
    assert "Revoke 3 of 3" in words(console.page(f"{where}/change/revoke"))
    assert console.submit(f"{where}/change/revoke", {"reason": "issued_in_error"}).status_code == 302
    web.product.run_only("tasks.issuance.change_batch")
    assert {row.state for row in web.product.rows(tables.credentials)} == {"revoked"}
