# SPDX-License-Identifier: Apache-2.0
"""What a new user does, on the real thing: one installation, every process, nothing replaced."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from conferral import wiring
from conferral.reliable.ids import new_run_id
from conferral.settings import Settings
from support.installation import Installation, installed

EXAMPLE = Path(__file__).parents[2] / "examples" / "graduates.csv"
PATIENCE_SECONDS = 90.0  # of a machine that is busy with other tests


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation whose schedules fire every few seconds and whose retries do not wait."""
    schedule = "purge_expired_sessions=7,generate_daily_issuance_report=7,retry_stuck=5"
    folder = tmp_path_factory.mktemp("house")
    with installed(folder, CONFERRAL_SCHEDULE=schedule, CONFERRAL_RETRY_SCALE="0.1") as running:
        yield running


def until(wanted: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until `wanted` returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return found


def body(email: str = "ada@example.org", **more: Any) -> dict[str, Any]:
    """Return a request for one credential."""
    person = {"name": "Ada Lovelace", "email": email}
    return {"template_id": "diploma", "recipient": person, "fields": {"course": "Engines"}, **more}


def finished(house: Installation, task_id: str) -> dict[str, Any] | None:
    """Return a task's status once it is final."""
    _, found, _ = house.call("GET", f"/tasks/{task_id}/status")
    return found if found["state"] in ("SUCCESS", "FAILURE", "REVOKED") else None


def issued_batch(house: Installation, folder: Path, rows: int) -> str:
    """Hand in a batch and return its id at once."""
    lines = ["Full name,E-mail,Course"]
    lines += [f"Person {number},p{number}@example.org,Databases" for number in range(rows)]
    file = folder / "people.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    done = house.run("batch", "issue", str(file), "--template", "diploma", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return next(record["batch_id"] for record in records if "batch_id" in record)


def batch_done(house: Installation, batch_id: str) -> dict[str, Any] | None:
    """Return a batch's counts once nothing of it is under way."""
    status, found, _ = house.call("GET", f"/v1/batches/{batch_id}")
    assert status == 200
    return found if found["status"] == "completed" else None


def each_mail_once(house: Installation, batch_id: str, rows: int) -> None:
    """Assert that a batch's mails came, each under one identity and no identity twice."""
    settings = Settings.from_env(house.environ, role="cli")
    database = wiring.database_of(settings, None)
    with database.snapshot() as session:
        sent = session.execute(
            text(
                "SELECT count(*), count(DISTINCT m.message_id) FROM mailbox m "
                "JOIN deliveries d ON d.id = m.delivery_id "
                "JOIN credentials c ON c.id = d.credential_id WHERE c.batch_id = :batch"
            ),
            {"batch": batch_id},
        ).one()
    database.dispose()
    assert tuple(sent) == (rows, rows)


def celery_result(house: Installation, task_id: str) -> Any:
    """Return what AsyncResult shows to a Python program of somebody else, once it says SUCCESS."""
    program = (
        "import json, os, sys\n"
        "from celery.result import AsyncResult\n"
        "from conferral import wiring\n"
        "from conferral.settings import Settings\n"
        "app = wiring.celery_of(Settings.from_env(os.environ, role='cli'))\n"
        "found = AsyncResult(sys.argv[1], app=app)\n"
        "print(json.dumps(found.result if found.state == 'SUCCESS' else None))\n"
    )
    asked = [sys.executable, "-c", program, task_id]
    done = subprocess.run(asked, env=house.environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def mails(house: Installation) -> list[dict[str, Any]]:
    """Return the newest captured mails."""
    done = house.run("mailbox", "--json", "--limit", "200")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_twenty_five_people_get_their_certificates_when_the_example_is_issued(house: Installation) -> None:
    """The banner's first command issues 25, shows 25 mails, and a listener verifies 25 webhooks."""
    listener = house.background("webhooks", "listen", "--count", "25", "--timeout", "120", "--json")
    until(lambda: house.call("GET", "/v1/webhook-endpoints")[1]["data"], "the listener's endpoint")
    done = house.run("batch", "issue", str(EXAMPLE), "--template", "diploma", "--yes", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25" in done.stdout + done.stderr
    assert sum(mail["recipient"].endswith("@alumni.example") for mail in mails(house)) == 25
    heard, _ = listener.communicate(timeout=120)
    assert listener.returncode == 0, heard
    assert heard.count('"verified": true') == 25


def test_a_credential_is_followed_to_its_end_when_it_is_asked_for_by_curl(house: Installation) -> None:
    """202 at once, then the states of the run; an unknown id is 404; Celery's own result says the same."""
    status, accepted, headers = house.call("POST", "/credentials/issue", body())
    assert (status, accepted["status"]) == (202, "queued")
    assert headers["Location"] == f"/tasks/{accepted['task_id']}/status"
    final = until(lambda: finished(house, accepted["task_id"]), "the credential")
    result = {"status": "issued", "credential_id": accepted["credential_id"]}
    assert (final["state"], final["result"], final["retry_count"]) == ("SUCCESS", result, 0)
    for unknown in (new_run_id(), "bogus"):
        assert house.call("GET", f"/tasks/{unknown}/status")[0] == 404
    shown = until(lambda: celery_result(house, accepted["task_id"]), "Celery's result")
    assert shown == result


def test_retries_are_counted_and_failures_named_when_addresses_ask_for_them(house: Installation) -> None:
    """RETRY shows its count and the next try; FAILURE shows the code."""
    _, slow, _ = house.call("POST", "/credentials/issue", body("chain-timeout@test.invalid"))
    _, bad, _ = house.call("POST", "/credentials/issue", body("bad-data@test.invalid"))
    final = until(lambda: finished(house, slow["task_id"]), "the retried one")
    assert (final["state"], final["retry_count"]) == ("SUCCESS", 2)
    failed = until(lambda: finished(house, bad["task_id"]), "the failed one")
    assert (failed["state"], failed["error"]["code"]) == ("FAILURE", "credential_data_invalid")


def test_one_credential_comes_of_a_request_that_is_repeated(house: Installation) -> None:
    """The same Idempotency-Key, and the same external_id, are the same credential."""
    first = house.call("POST", "/credentials/issue", body(), Idempotency_Key="k-1")
    again = house.call("POST", "/credentials/issue", body(), Idempotency_Key="k-1")
    assert first[1] == again[1]
    assert again[2]["Idempotency-Replayed"] == "true"
    assert house.call("POST", "/credentials/issue", body("b@example.org"), Idempotency_Key="k-1")[0] == 422
    named = [house.call("POST", "/credentials/issue", body(external_id="s-7"))[1] for _ in range(2)]
    assert named[0]["credential_id"] == named[1]["credential_id"]
    assert named[0]["task_id"] == named[1]["task_id"]


def test_requests_are_accepted_and_kept_when_redis_does_not_answer(house: Installation) -> None:
    """With Redis frozen every POST is a quick 202; all is issued after it wakes up."""
    with house.redis() as client:
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        answers = [house.call("POST", "/credentials/issue", body()) for _ in range(5)]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [status for status, _, _ in answers] == [202] * 5
    for task_id in [accepted["task_id"] for _, accepted, _ in answers]:
        issued = until(lambda task_id=task_id: finished(house, task_id), "its issue")
        assert issued["state"] == "SUCCESS"


def test_a_batch_is_issued_once_each_when_a_pool_child_is_killed(house: Installation, tmp_path: Path) -> None:
    """SIGKILL of a child in the middle of 200: all issued, each mail once."""
    batch_id = issued_batch(house, tmp_path, 200)
    until(
        lambda: house.call("GET", f"/v1/batches/{batch_id}")[1]["credentials"].get("issued", 0) > 10,
        "a start",
    )
    worker = house.status()["hp"]["pid"]
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    counts = until(lambda: batch_done(house, batch_id), "the batch", 180)
    assert counts["credentials"] == {"issued": 200}
    each_mail_once(house, batch_id, 200)


def test_a_batch_is_issued_once_each_when_redis_is_flushed(house: Installation, tmp_path: Path) -> None:
    """FLUSHALL in the middle of 200: all issued, each mail once, and nobody has to do anything."""
    batch_id = issued_batch(house, tmp_path, 200)
    until(
        lambda: house.call("GET", f"/v1/batches/{batch_id}")[1]["credentials"].get("issued", 0) > 10,
        "a start",
    )
    with house.redis() as client:
        client.flushall()
    counts = until(lambda: batch_done(house, batch_id), "the batch", 180)
    assert counts["credentials"] == {"issued": 200}
    each_mail_once(house, batch_id, 200)


def test_the_three_schedules_fire_when_their_time_comes(house: Installation) -> None:
    """Beat promises each slot, a worker executes it, and the status shows the last one."""

    def ticked() -> bool:
        done = house.run("status", "--json")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        shown = json.dumps(rows)
        leaders = "dispatcher" in shown and "beat" in shown
        names = ("purge_expired_sessions", "generate_daily_issuance_report", "retry_stuck")
        return leaders and all(name in shown for name in names) and shown.count('"SUCCESS"') >= 3

    until(ticked, "three ticks")


def test_flower_shows_the_nodes_and_changes_nothing(house: Installation) -> None:
    """Five nodes for whoever has the password; nobody can stop a worker there."""
    port = house.ports[3]
    password = (house.folder / "keys" / "flower.password").read_text().strip()
    login = "Basic " + base64.b64encode(f"operator:{password}".encode()).decode()
    assert house.get(port, "/api/workers")[0] == 401
    for node in ("hp", "mail", "hooks", "chain", "lp"):
        until(
            lambda node=node: f"{node}@" in house.get(port, "/workers?json=1", Authorization=login)[1], node
        )
    refused = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST",  "-u", f"operator:{password}",
         f"http://127.0.0.1:{port}/api/worker/shutdown/hp@{os.uname().nodename}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.stdout.startswith("4"), refused.stdout


def test_a_stranger_can_check_a_certificate(house: Installation, tmp_path: Path) -> None:
    """The page says VALID, the command line says so of the PDF, and a changed byte is found."""
    _, accepted, _ = house.call("POST", "/credentials/issue", body())
    until(lambda: finished(house, accepted["task_id"]), "the credential")
    _, shown, _ = house.call("GET", f"/v1/credentials/{accepted['credential_id']}")
    pdf = tmp_path / "certificate.pdf"
    page = shown["links"]["page"].partition(f":{house.ports[0]}")[2]
    status, html = house.get(house.ports[0], page, Accept="text/html")
    assert status == 200
    assert "genuine" in html
    fetched = subprocess.run(
        ["curl", "-s", "-o", str(pdf), f"http://localhost:{house.ports[0]}{page}/certificate.pdf"], check=True
    )
    assert fetched.returncode == 0
    good = house.run("verify", str(pdf))
    assert good.returncode == 0, good.stdout + good.stderr
    content = bytearray(pdf.read_bytes())
    content[len(content) // 3] ^= 1
    pdf.write_bytes(bytes(content))
    assert house.run("verify", str(pdf)).returncode == 12


def test_many_equal_requests_make_one_credential_when_they_come_at_once(house: Installation) -> None:
    """Twenty parallel POSTs under one Idempotency-Key are one credential."""
    answers: list[tuple[int, Any, dict[str, str]]] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(
                house.call("POST", "/credentials/issue", body("many@example.org"), Idempotency_Key="k-many")
            )
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = {answer["credential_id"] for status, answer, _ in answers if status == 202}
    assert len(made) == 1
    assert {status for status, _, _ in answers} <= {202, 409}
