# SPDX-License-Identifier: Apache-2.0
"""What operators and their machines ask: queues, dead letters, readiness, metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conferral.reliable import leadership, pauses
from conferral.reliable import tables as reliable
from conferral.store import tables
from conferral.web import health
from conferral.web.app import create_app
from support.product import DATABASES, product_on
from support.redis import redis_server
from support.web import ISSUE, Web, body, web_of


@pytest.fixture(params=DATABASES)
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Web]:
    """Yield the application on a database."""
    health._known["until"] = 0.0
    with product_on(request.param, tmp_path, CONFERRAL_REDIS_URL="redis://127.0.0.1:1") as product:
        yield web_of(product)


def test_queues_say_what_is_due_and_who_is_there(web: Web) -> None:
    """Depth from the rows, slots from living workers, pauses, leaders."""
    web.post(ISSUE, body())
    rt = web.product.rt
    now = rt.database.now()
    with rt.database.transaction() as session:
        pauses.pause(session, "queue", "webhooks")
        leadership.lead(
            session, "beat", "host/1", {"retry_stuck": f"tick:retry_stuck:{now:%Y-%m-%dT%H:%M:%SZ}"}
        )
        session.execute(
            reliable.workers.insert().values(
                node="hp@host", pid=1, pool="hp", queues=["high_priority"], slots=4, host="host",
                started_at=now, seen_at=now,
            )
        )  # fmt: skip
    answer = web.get("/v1/ops/queues", "ops:read").json
    queues = {one["queue"]: one for one in answer["data"]}
    assert list(queues) == ["high_priority", "default", "webhooks", "anchoring", "low_priority"]
    assert (queues["high_priority"]["due"], queues["high_priority"]["slots"]) == (3, 4)  # 2 status lists
    assert (queues["webhooks"]["paused"], queues["default"]["paused"]) == (True, False)
    assert {one["name"]: one["held"] for one in answer["leaders"]} == {"dispatcher": False, "beat": True}
    assert [one["node"] for one in web.get("/v1/ops/workers", "ops:read").json["data"]] == ["hp@host"]
    schedules = {one["name"]: one for one in web.get("/v1/ops/schedules", "ops:read").json["data"]}
    assert schedules["retry_stuck"]["last_fired_at"] == "2026-01-01T12:00:00Z"
    assert schedules["purge_expired_sessions"]["last_fired_at"] is None


def test_a_replay_does_what_its_preview_said(web: Web) -> None:
    """By cause, audited; a credential's failed run is taken up again."""
    web.post(ISSUE, body("bounce@test.invalid"))
    web.post(ISSUE, body("bad-data@test.invalid"))
    web.product.run()
    listed = web.get("/v1/ops/dead-letters", "ops:read").json
    assert {(one["code"], one["count"]) for one in listed["causes"]} == {
        ("mailbox_unknown", 1), ("credential_data_invalid", 1),
    }  # fmt: skip
    wanted = {"filter": {"code": "credential_data_invalid"}}
    preview = web.post("/v1/ops/dead-letters/replay", {**wanted, "preview": True}, "ops:write").json
    assert preview["count"] == 1
    assert len(web.get("/v1/ops/dead-letters", "ops:read").json["data"]) == 2
    done = web.post("/v1/ops/dead-letters/replay", wanted, "ops:write").json
    assert done["replayed"] == 1
    assert [one["error"]["code"] for one in web.get("/v1/ops/dead-letters", "ops:read").json["data"]] == [
        "mailbox_unknown"
    ]
    gone = web.post("/v1/ops/dead-letters/discard", {"filter": {"code": "mailbox_unknown"}}, "ops:write")
    assert gone.json["discarded"] == 1
    actions = {row.action for row in web.product.rows(tables.audit_log)}
    assert {"dead_letters.replayed", "dead_letters.discarded"} <= actions


def test_dead_letters_of_others_and_of_the_other_mode_are_left_alone(web: Web) -> None:
    """A test key must not send live mail, nor another school's."""
    web.post(ISSUE, body("bounce@test.invalid"))
    web.product.run()
    live = web.key("ops:read", "ops:write", mode="live")
    foreign = web.key("ops:read", "ops:write", organisation_id=web.other_organisation())
    for headers in (live, foreign):
        assert web.client.get("/v1/ops/dead-letters", headers=headers).json["data"] == []
        done = web.client.post("/v1/ops/dead-letters/discard", json={"filter": {}}, headers=headers)
        assert done.json["discarded"] == 0
    assert len(web.get("/v1/ops/dead-letters", "ops:read").json["data"]) == 1


def test_readiness_degrades_without_redis_and_ends_without_storage(web: Web) -> None:
    """Redis down is 200: a load balancer that took us away would make an outage of a delay."""
    ready = web.client.get("/readyz")
    assert (ready.status_code, ready.json["status"]) == (200, "degraded")
    assert ready.json["checks"] == {"database": "ok", "schema": "ok", "storage": "ok", "redis": "failed"}
    blobs = web.product.settings.blobs_dir
    blobs.rename(blobs.with_name("gone"))
    health._known["until"] = 0.0
    broken = web.client.get("/readyz")
    assert (broken.status_code, broken.json["checks"]["storage"]) == (503, "failed")
    assert broken.headers["Retry-After"]


def test_readiness_is_whole_with_redis(web: Web) -> None:
    """And a schema of another version ends it."""
    with redis_server() as url:
        whole = web_of(web.product, broker_url=f"{url}/0", redis_url=url, result_url=f"{url}/1")
        assert whole.client.get("/readyz").json["status"] == "ok"
    with web.product.rt.database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
    health._known["until"] = 0.0
    assert web.client.get("/readyz").json["checks"]["schema"] == "failed"


def test_limits_are_counted_by_all_processes_together(web: Web) -> None:
    """Two applications, one Redis, one count."""
    with redis_server() as url:
        one, two = (web_of(web.product, result_url=f"{url}/1") for _ in range(2))
        headers = web.key()
        first = one.client.get("/v1/credentials", headers=headers).headers["RateLimit"]
        second = two.client.get("/v1/credentials", headers=headers).headers["RateLimit"]
    assert "r=2999" in first
    assert "r=2998" in second or "r=2999" in second  # a new minute may have begun


def metrics(web: Web) -> dict[tuple[str, ...], float]:
    """Scrape, and return every sample by its name and labels."""
    settings = dataclasses.replace(web.product.settings, role="streams")
    client = create_app(settings, web.product.rt).test_client()
    port = str(settings.metrics_port)
    text = client.get("/metrics", environ_overrides={"SERVER_PORT": port}).get_data(as_text=True)
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [value for _, value in sorted(sample.labels.items())]
            found[sample.name.removeprefix("conferral_"), *labels] = sample.value
    return found


def test_gauges_are_the_rows(web: Web) -> None:
    """What is due, parked, unfinished; nothing about anybody in a label."""
    web.post(ISSUE, body("bounce@test.invalid"))
    web.post("/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/hook"})
    web.product.run()
    made = web.post(ISSUE, body()).json
    found = metrics(web)
    assert found["runs", "PENDING", "tasks.issuance.issue_credential"] == 1
    assert found["queue_due", "interactive", "high_priority"] == 1
    assert found["dead_letters", "mailbox_unknown", "tasks.notifications.send_issuance_email"] == 1
    assert found["credentials", "queued"] == 1
    assert found["log_size", "test"] == 1
    assert found["log_unsequenced_leaves", "test"] == 0
    assert found["webhook_endpoints", "enabled"] == 1
    assert (found["redis_up",], found["database_up",], found["beat_leader",]) == (0, 1, 0)
    assert 0 < found["storage_free_ratio",] < 1
    labels = " ".join(label for name in found for label in name[1:])
    assert made["credential_id"] not in labels
    assert web.product.caller.organisation_id not in labels


def test_metrics_answer_on_their_own_port_only(web: Web) -> None:
    """A proxy in front of the streams cannot publish them by accident."""
    settings = dataclasses.replace(web.product.settings, role="streams")
    client = create_app(settings, web.product.rt).test_client()
    streams = {"SERVER_PORT": str(settings.stream_port)}
    assert client.get("/metrics", environ_overrides=streams).status_code == 404
    assert client.get("/healthz").json == {"status": "ok"}
    assert web.client.get("/metrics").status_code == 404
