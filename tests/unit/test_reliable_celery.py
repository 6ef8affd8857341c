# SPDX-License-Identifier: Apache-2.0
"""The settings that the bounds rest on, what is bound to an application, and the bell's manners."""

from __future__ import annotations

import threading
from typing import Any

import celery
import kombu
import pytest
from celery.exceptions import Ignore
from kombu.exceptions import OperationalError

from conferral.reliable import app as reliable_app
from conferral.reliable.app import bind, install_worker, make_celery, process_of
from conferral.reliable.bell import Bell
from conferral.reliable.errors import RoutingError
from conferral.reliable.ids import new_run_id
from conferral.reliable.outbox import Ring
from conferral.reliable.routing import Pool, Routing
from conferral.reliable.task import Task
from conferral.reliable.testing import FrozenTime, memory_context

ROUTING = Routing((("mail.*", "mail"),), (Pool("mail", "mail", "threads", 2),))


def make(broker_url: str = "redis://localhost/0", **options: Any) -> celery.Celery:
    """Return an application that connects to nothing."""
    return make_celery(
        "test", broker_url=broker_url, result_url="cache+memory://", routing=ROUTING, **options
    )


def test_settings_are_those_that_the_bounds_rest_on() -> None:
    """Each has its reason in app.py; a change here is a decision."""
    conf = make().conf
    expected = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure_or_timeout": False,
        "worker_prefetch_multiplier": 1,
        "task_create_missing_queues": False,
        "task_ignore_result": True,
        "task_publish_retry": False,
        "accept_content": ["json"],
        "visibility_timeout": 60,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": 0.0,
        "task_always_eager": False,
        "enable_utc": True,
        "worker_max_tasks_per_child": 5_000,
        "worker_max_memory_per_child": 400_000,
    }
    assert {name: conf[name] for name in expected} == expected
    transport = conf.broker_transport_options
    assert transport["visibility_timeout"] == 60
    assert (transport["unacked_restore_interval"], transport["unacked_restore_throttle"]) == (1, 1)
    assert conf.result_backend_transport_options["visibility_timeout"] == 60
    assert conf.result_backend_transport_options["retry_policy"] == {"max_retries": 0}
    assert [queue.name for queue in conf.task_queues] == ["mail"]


def test_redis_options_are_not_given_to_another_broker() -> None:
    """RabbitMQ refuses what it does not know."""
    assert make("amqp://localhost").conf.broker_transport_options == {}


def test_versions_are_those_that_were_proved() -> None:
    """5.7.0 exits when Redis goes during a late-acknowledged task; batches need kombu 5.7."""
    assert celery.__version__ >= "5.6.3"
    assert celery.__version__ != "5.7.0"
    assert tuple(int(part) for part in kombu.__version__.split(".")[:2]) >= (5, 7)


def test_binding_is_refused_when_work_leads_nowhere() -> None:
    """Importing the application is the start-up check."""
    with pytest.raises(RoutingError, match="task pdf"):
        bind(make(), {"pdf.render": Task("pdf.render", print)}, ROUTING, lambda: None)  # type: ignore[arg-type, return-value]
    app = make(schedule={"nightly": {"task": "mail.gone", "schedule": 60.0}})
    with pytest.raises(RoutingError, match="nightly"):
        bind(app, {}, ROUTING, lambda: None)  # type: ignore[arg-type, return-value]


def bound() -> tuple[celery.Celery, list[str]]:
    """Return an application with one task over a database in memory, and what it did."""
    done: list[str] = []
    context = memory_context(ROUTING, FrozenTime())
    app = make()
    bind(app, {"mail.send": Task("mail.send", lambda run: done.append(run.id))}, ROUTING, lambda: context)
    return app, done


@pytest.mark.parametrize(
    "message",
    [None, 5, "x", [], [1], ["x"], [None], [[new_run_id()]], [new_run_id()] * 33, [new_run_id().upper()], {}],
)
def test_message_is_dropped_when_it_is_no_ring(message: object, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever else it carries never reaches the database."""
    app, done = bound()
    with pytest.raises(Ignore):
        app.tasks["mail.send"].run(message)
    assert [record.message for record in caplog.records] == ["ring_malformed"]
    with pytest.raises(Ignore):
        app.tasks["mail.send"].run([new_run_id()], "more", unknown=1)
    assert done == []


def test_process_is_built_once_when_threads_ask_at_the_same_time() -> None:
    """Two Holdings would leave one without a heartbeat."""
    built: list[int] = []
    gate = threading.Barrier(8)
    app = make()

    def make_context() -> Any:
        built.append(1)
        return memory_context(ROUTING, FrozenTime())

    bind(app, {"mail.send": Task("mail.send", print)}, ROUTING, make_context)
    found: list[Any] = []

    def ask() -> None:
        gate.wait()
        found.append(process_of(app))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (built, len({id(one) for one in found})) == ([1], 1)


def test_process_is_built_anew_when_the_pid_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child must never use its parent's connections."""
    app, _ = bound()
    mine = process_of(app)
    assert process_of(app) is mine
    monkeypatch.setattr(reliable_app.os, "getpid", lambda: -1)
    assert process_of(app) is not mine


def test_worker_is_refused_when_its_pool_is_not_in_the_routing() -> None:
    """A pool nobody routes to would idle for ever."""
    app, _ = bound()
    with pytest.raises(RoutingError, match="other"):
        install_worker(app, Pool("other", "mail", "threads", 1))


class FailingProducer(Bell):
    """A bell whose publishing fails, slowly, as told."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.error = error
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()

    def _publish_all(self, bundles: Any) -> None:
        del bundles
        self.asked += 1
        self.gate.wait(10)
        if self.error is not None:
            raise self.error


RING = [Ring("id", "mail.send", "mail")]


@pytest.mark.parametrize(
    "error", [OperationalError(), ConnectionError(), kombu.exceptions.BatchPublishError()]
)
def test_bell_is_quiet_for_a_while_when_redis_was_found_away(error: Exception) -> None:
    """Not every request waits for the same time-out."""
    bell = FailingProducer(error)
    assert bell.ring(RING) == ["id"]
    assert bell.is_quiet
    assert bell.ring(RING) == ["id"]
    assert bell.asked == 1
    bell._quiet_until = 0.0
    bell.error = None
    assert bell.ring(RING) == []
    assert not bell.is_quiet


def test_bell_is_quiet_for_a_while_when_redis_is_slow() -> None:
    """What was rung is rung; the next request leaves it to the dispatcher instead of waiting as long."""
    bell = FailingProducer(None)
    bell._slow_seconds = 0.0
    assert bell.ring(RING) == []
    assert bell.is_quiet
    assert bell.ring(RING) == ["id"]
    assert bell.asked == 1


def test_one_thread_finds_out_whether_redis_is_back_and_the_others_go_on() -> None:
    """A black hole costs one thread its time-out, not all of them."""
    bell = FailingProducer(OperationalError())
    bell.ring(RING)
    bell._quiet_until = 0.0
    bell.gate.clear()
    probing = threading.Thread(target=bell.ring, args=(RING,))
    probing.start()
    while bell.asked < 2:
        pass
    assert bell.ring(RING) == ["id"]
    assert bell.asked == 2
    bell.gate.set()
    probing.join()


def test_caller_hears_nothing_when_the_bell_breaks_in_an_unknown_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The commit stands; an error after it must not look like a failed one. The log says it."""
    bell = FailingProducer(ZeroDivisionError())
    assert bell.ring(RING) == ["id"]
    assert caplog.records[-1].levelname == "ERROR"
    assert not bell.is_quiet


def test_redelivered_message_is_no_reason_to_ask_redis_when_nothing_is_to_be_said() -> None:
    """An empty outbox costs nothing."""
    bell = FailingProducer(OperationalError())
    assert bell.ring([]) == []
    bell.show([])
    assert bell.asked == 0
