# SPDX-License-Identifier: Apache-2.0
"""The console in a browser without scripts: the door, every page, and what forms may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from conferral.store import tables
from support.product import product_on
from support.web import ISSUE, PASSWORD, Web, body, stand_in_order, web_of, words

HTML = {"Accept": "text/html"}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """Yield the application on SQLite."""
    with product_on("sqlite", tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


def test_a_stranger_is_asked_to_sign_in_and_led_back(web: Web) -> None:
    """To the page that was wanted, and never to another site."""
    asked = web.client.get("/console/credentials?state=failed", headers=HTML)
    assert asked.status_code == 302
    assert asked.headers["Location"].startswith("/console/login?next=")
    email = web.person()
    for wanted, led in (
        ("/console/credentials?state=failed", "/console/credentials?state=failed"),
        ("https://evil.example/", "/console/"),
        ("//evil.example/console", "/console/"),
        ("/console\\@evil.example", "/console/"),
        ("/c/x", "/console/"),
    ):
        form = {"email": email, "password": PASSWORD, "next": wanted}
        answer = web.client.post("/console/login", data=form)
        assert (answer.status_code, answer.headers["Location"]) == (302, led)


def test_the_cookie_is_out_of_reach_and_new_at_every_sign_in(web: Web) -> None:
    """HttpOnly, SameSite, a fresh value; only its digest is stored."""
    email = web.person()
    cookies = []
    for _ in range(2):
        answer = web.client.post("/console/login", data={"email": email.upper(), "password": PASSWORD})
        cookies.append(answer.headers["Set-Cookie"])
    assert all("HttpOnly" in one and "SameSite=Lax" in one and "Path=/" in one for one in cookies)
    assert cookies[0] != cookies[1]
    value = cookies[0].partition("=")[2].partition(";")[0]
    assert all(value.encode() not in bytes(row.digest) for row in web.product.rows(tables.sessions))


def test_over_https_the_cookie_is_bound_to_the_host(web: Web) -> None:
    """`__Host-` and Secure; and the browser is told to stay on https."""
    secure = web_of(web.product, public_url="https://credentials.example.org")
    email = web.person()
    answer = secure.client.post(
        "/console/login",
        data={"email": email, "password": PASSWORD},
        base_url="https://credentials.example.org",
    )
    assert answer.headers["Set-Cookie"].startswith("__Host-conferral=")
    assert "Secure" in answer.headers["Set-Cookie"]
    assert "Strict-Transport-Security" in answer.headers


def test_a_wrong_password_says_nothing_about_the_account(web: Web) -> None:
    """Unknown address and wrong password read alike."""
    email = web.person()
    wrong = web.client.post("/console/login", data={"email": email, "password": "x"})
    unknown = web.client.post("/console/login", data={"email": "nobody@example.com", "password": "x"})
    assert wrong.status_code == unknown.status_code == 401
    said = "The address or the password is wrong."
    assert said in wrong.get_data(as_text=True)
    assert said in unknown.get_data(as_text=True)


def test_guessing_is_stopped(web: Web) -> None:
    """Ten a minute for an account, and then the right password does not help either."""
    email = web.person()
    guesses = [
        web.client.post("/console/login", data={"email": email, "password": "x"}).status_code
        for _ in range(21)
    ]
    assert guesses.count(401) <= 20  # of two windows at most
    assert guesses[-1] == 429
    right = web.client.post("/console/login", data={"email": email, "password": PASSWORD})
    assert right.status_code == 429
    assert int(right.headers["Retry-After"]) >= 1


def test_signing_out_ends_the_session(web: Web) -> None:
    """Also for whoever kept the cookie."""
    console = web.signed_in()
    assert console.submit("/console/logout", {}).status_code == 302
    assert web.product.rows(tables.sessions) == []
    assert console.client.get("/console/", headers=HTML).status_code == 302


def test_a_session_ends_by_itself(web: Web) -> None:
    """After twelve hours."""
    console = web.signed_in()
    web.product.time.move(12 * 3600 + 1)
    assert console.client.get("/console/", headers=HTML).status_code == 302


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}],
)
def test_a_form_of_another_site_is_refused(web: Web, headers: dict[str, str]) -> None:
    """Even with the right token, and at the sign-in, too."""
    console = web.signed_in()
    assert console.submit("/console/logout", {}, headers=headers).status_code == 403
    assert console.client.post("/console/login", data={}, headers=headers).status_code == 403
    assert len(web.product.rows(tables.sessions)) == 1


def test_a_form_without_the_sessions_token_is_refused(web: Web) -> None:
    """A cookie alone changes nothing."""
    console = web.signed_in()
    for token in ("", "x", "é"):
        assert console.client.post("/console/logout", data={"csrf": token}).status_code == 403


def test_every_page_can_be_looked_at_when_there_is_nothing_yet(web: Web) -> None:
    """And says what to do next."""
    console = web.signed_in()
    assert "conferral batch issue" in console.page("/console/")
    for path in ("credentials", "batches", "mailbox", "webhooks", "reports", "operations"):
        assert len(words(console.page(f"/console/{path}"))) > 200
    assert "Nothing matches" in console.page("/console/credentials?q=nobody&state=issued&mode=live")


def test_the_timeline_says_what_was_done_and_how_it_went(web: Web) -> None:
    """Every attempt with its outcome, its code in words, the leaf, the Message-ID."""
    made = web.post(ISSUE, body("chain-timeout@test.invalid")).json
    web.product.run(patience_seconds=600)
    said = words(web.signed_in().page(f"/console/credentials/{made['credential_id']}"))
    parts = (
            "Ada Lovelace", "Issued", "Accepted", "Issue", "3 attempts", "To be tried again",
            "the anchor did not answer", "anchor_timeout", "Leaf 0 of the test log", "E-mail", "Message-ID",
            "250",
        )  # fmt: skip
    assert stand_in_order(said, parts)


def test_a_captured_message_is_shown_where_it_can_do_nothing(web: Web) -> None:
    """A frame without scripts; its own policy lets it load nothing from anywhere."""
    web.post(ISSUE, body())
    web.product.run()
    (row,) = web.product.mailbox()
    console = web.signed_in()
    page = console.client.get(f"/console/mailbox/{row.id}")
    frame = re.search(r"<iframe[^>]+sandbox=\"([^\"]*)\"", page.get_data(as_text=True))
    assert frame is not None
    assert "allow-scripts" not in frame[1]
    assert "allow-same-origin" not in frame[1]
    assert "frame-src 'self'" in page.headers["Content-Security-Policy"]
    inner = console.client.get(f"/console/mailbox/{row.id}/html")
    policy = inner.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "Congratulations" in inner.get_data(as_text=True)
    source = console.client.get(f"/console/mailbox/{row.id}/source")
    assert (source.data, source.mimetype) == (bytes(row.source), "text/plain")


def test_a_batch_is_bars_and_failures(web: Web) -> None:
    """What is done of each step, and what needs a person."""
    people = ["ada@example.com", "bad-data@test.invalid", "bounce@test.invalid"]
    rows = [
        {"recipient": {"name": f"Student {number}", "email": email}, "fields": {"course": "Statistics"}}
        for number, email in enumerate(people)
    ]
    document = {"template_id": "diploma", "name": "Class of 2026", "rows": rows}
    made = web.post("/v1/batches", document, Idempotency_Key="b").json
    web.product.run(patience_seconds=60)
    console = web.signed_in()
    html = console.page(f"/console/batches/{made['batch_id']}")
    said = words(html)
    assert "2 of 3" in said
    assert "1 needs attention" in said
    assert "Student 1" in said
    assert re.search(r'<progress max="3" value="2"', html)
    assert "Class of 2026" in console.page("/console/batches")


def test_nobody_sees_what_belongs_to_another_organisation(web: Web) -> None:
    """Ids are no authority: 404 on every page that takes one."""
    made = web.post(ISSUE, body()).json
    batch = web.post(
        "/v1/batches",
        {"template_id": "diploma", "rows": [{k: v for k, v in body().items() if k != "template_id"}]},
        Idempotency_Key="b",
    ).json
    web.product.run()
    web.product.promise("tasks.reports.generate_daily_issuance_report")
    web.product.run()
    (report,) = web.product.rows(tables.reports)
    message = web.product.mailbox()[0]
    console = web.signed_in()
    paths = [
        f"/console/credentials/{made['credential_id']}", f"/console/batches/{batch['batch_id']}",
        f"/console/mailbox/{message.id}", f"/console/mailbox/{message.id}/html",
        f"/console/mailbox/{message.id}/source", f"/console/reports/{report.id}",
    ]  # fmt: skip
    for path in paths:
        assert console.client.get(path, headers=HTML).status_code == 200
    stranger = web.signed_in("viewer")
    other = web.other_organisation()
    with web.product.rt.database.transaction() as session:
        session.execute(
            tables.members.update().where(tables.members.c.role == "viewer").values(organisation_id=other)
        )
    for path in paths:
        assert stranger.client.get(path, headers=HTML).status_code == 404
    assert "Ada Lovelace" not in stranger.page("/console/credentials")


def mail_states(web: Web) -> dict[str, str]:
    """Return the state of every e-mail's run."""
    return {row.id: row.state for row in web.product.runs_of("tasks.notifications.send_issuance_email")}


def dead_letters(web: Web) -> list[str]:
    """Let two e-mails bounce; return their runs."""
    for number in range(2):
        web.post(ISSUE, body(f"bounce+{number}@test.invalid"))
    web.product.run()
    return [
        row.id
        for row in web.product.runs_of("tasks.notifications.send_issuance_email")
        if row.state == "FAILURE"
    ]


def test_dead_letters_are_replayed_as_they_were_shown(web: Web) -> None:
    """What is ticked and nothing else; who did it is written down."""
    first, second = dead_letters(web)
    console = web.signed_in()
    assert "mailbox does not exist" in words(console.page("/console/operations"))
    preview = console.page("/console/operations/dead-letters?code=mailbox_unknown")
    assert preview.count('name="task_id"') == 2
    form = {"action": "replay", "task_id": [first]}
    answer = console.submit("/console/operations/dead-letters", form)
    assert answer.headers["Location"].endswith("done=replay&count=1")
    states = mail_states(web)
    assert (states[first], states[second]) == ("PENDING", "FAILURE")
    audited = [row for row in web.product.rows(tables.audit_log) if row.action == "dead_letters.replayed"]
    assert [(row.subject, row.actor.partition(":")[0]) for row in audited] == [(first, "user")]


def test_dead_letters_are_given_up_for_good(web: Web) -> None:
    """They end as cancelled, and stay in the history."""
    ids = dead_letters(web)
    console = web.signed_in()
    console.submit("/console/operations/dead-letters", {"action": "discard", "task_id": ids})
    assert set(mail_states(web).values()) == {"REVOKED"}


def test_a_viewer_looks_and_changes_nothing(web: Web) -> None:
    """Neither by the page nor by a form of his own making."""
    ids = dead_letters(web)
    console = web.signed_in("viewer")
    assert "Replay what is ticked" not in console.page("/console/operations/dead-letters")
    answer = console.submit("/console/operations/dead-letters", {"action": "replay", "task_id": ids})
    assert answer.status_code == 403
    assert {row.state for row in web.product.runs_of("tasks.notifications.send_issuance_email")} == {
        "FAILURE"
    }


def test_a_form_cannot_touch_the_runs_of_others(web: Web) -> None:
    """Ids that were not shown to this person are left alone."""
    ids = dead_letters(web)
    stranger = web.signed_in()
    other = web.other_organisation()
    with web.product.rt.database.transaction() as session:
        user = session.execute(select(tables.users.c.id).where(tables.users.c.email == "owner@example.com"))
        session.execute(
            tables.members.update()
            .where(tables.members.c.user_id == user.scalar_one())
            .values(organisation_id=other)
        )
    answer = stranger.submit("/console/operations/dead-letters", {"action": "discard", "task_id": ids})
    assert answer.headers["Location"].endswith("count=0")
    assert {row.state for row in web.product.runs_of("tasks.notifications.send_issuance_email")} == {
        "FAILURE"
    }


def test_a_person_of_two_organisations_chooses_one(web: Web) -> None:
    """And cannot choose one of others."""
    console = web.signed_in()
    other = web.other_organisation("Second School")
    foreign = web.other_organisation("Third School")
    with web.product.rt.database.transaction() as session:
        user = session.execute(select(tables.users.c.id).where(tables.users.c.email == "owner@example.com"))
        session.execute(
            tables.members.insert().values(organisation_id=other, user_id=user.scalar_one(), role="viewer")
        )
    console.submit("/console/organisation", {"organisation": other})
    assert "<h1><bdi>Second School</bdi></h1>" in console.page("/console/")
    console.submit("/console/organisation", {"organisation": foreign})
    assert "<h1><bdi>Third School</bdi></h1>" not in console.page("/console/")
