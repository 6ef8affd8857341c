# SPDX-License-Identifier: Apache-2.0
"""The webhook client against a receiver that misbehaves in every way, on real sockets."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme
from standardwebhooks import Webhook

from conferral.adapters import guarded_http
from conferral.adapters.address_guard import AddressGuard
from conferral.adapters.webhook_client import Answer, EndpointFailed, EndpointGone, WebhookClient
from conferral.domain.webhook_event import event_body, generate_secret
from conferral.reliable.errors import Permanent, Retryable
from support.fake_webhook import (
    FakeWebhook,
    Reaction,
    close,
    drip_body,
    drip_headers,
    endless,
    hang,
    huge,
    redirect,
    reset,
    status,
)

SECRET = generate_secret(bytes(range(32)))
OLD_SECRET = generate_secret(bytes(range(1, 33)))
NOW = dt.datetime.now(dt.UTC)
BODY = event_body("credential.issued", NOW, {"credential_id": "cred_1"})
LOOPBACK = AddressGuard([ipaddress.ip_network("127.0.0.0/8")], production=False)


@pytest.fixture
def client() -> Iterator[WebhookClient]:
    """Return a client that may reach this host, with short deadlines."""
    made = WebhookClient(LOOPBACK, user_agent="Conferral/test", connect_seconds=0.5, total_seconds=0.6)
    yield made
    made.close()


def post(client: WebhookClient, url: str, **changes: object) -> Answer:
    """Post the one event of these tests."""
    values: dict[str, object] = {"event_id": "evt_1", "body": BODY, "secrets": [SECRET], "now": NOW}
    return client.post(url, **{**values, **changes})  # type: ignore[arg-type]


def outcome(client: WebhookClient, reaction: Reaction) -> Retryable | Permanent:
    """Return what is raised when the receiver reacts like this."""
    with FakeWebhook(answers=[reaction]) as receiver, pytest.raises((Retryable, Permanent)) as caught:
        post(client, receiver.url)
    assert len(receiver.history.requests) == 1
    assert isinstance(caught.value, Retryable | Permanent)
    return caught.value


def test_delivery_is_verified_by_the_standard_library(client: WebhookClient) -> None:
    """A receiver verifies what arrives with the reference library and its secret, nothing else."""
    with FakeWebhook(secrets=[SECRET]) as receiver:
        answer = post(client, receiver.url, secrets=[SECRET, OLD_SECRET], now=dt.datetime.now(dt.UTC))
    request = receiver.history.requests[0]
    Webhook(SECRET).verify(request.body, dict(request.headers))
    Webhook(OLD_SECRET).verify(request.body, dict(request.headers))
    assert request.is_signed
    assert request.body == BODY
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"] == "Conferral/test"
    assert (answer.status, answer.snippet) == (200, "ok")
    assert answer.evidence() == {"status": 200, "duration_ms": answer.duration_ms}


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_every_2xx_is_success(client: WebhookClient, code: int) -> None:
    """Any 2xx says that the webhook was received."""
    with FakeWebhook(answers=[status(code, body=b"")]) as receiver:
        assert post(client, receiver.url).status == code


@pytest.mark.parametrize("code", [300, 301, 307, 400, 401, 404, 422, 500, 501, 599])
def test_other_answers_are_retried(client: WebhookClient, code: int) -> None:
    """Every other answer but 410 is tried again, and what it said is kept for a person."""
    error = outcome(client, status(code, body=b"went wrong for zoe@students.example"))
    assert isinstance(error, EndpointFailed)
    assert error.code == "endpoint_error"
    assert error.answer is not None
    assert "zoe" in error.answer.snippet
    assert "zoe" not in f"{error.detail} {error.evidence} {error.answer!r}"


@pytest.mark.parametrize("code", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("999999999", 86_400.0),
        (format_datetime(NOW.replace(microsecond=0) + dt.timedelta(seconds=90), usegmt=True), 90.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
    ],
    ids=["seconds", "zero", "too-long", "date", "past-date", "word", "negative"],
)
def test_throttled_endpoint_is_obeyed(
    client: WebhookClient, code: int, value: str, expected: float | None
) -> None:
    """Retry-After is obeyed in seconds or as a date, up to a day."""
    error = outcome(client, status(code, retry_after=value))
    assert error.code == "endpoint_throttled"
    assert error.retry_after_seconds == pytest.approx(expected, abs=1.0)


def test_endpoint_that_is_gone_is_permanent(client: WebhookClient) -> None:
    """410 means never again."""
    error = outcome(client, status(410, body=b"bye"))
    assert isinstance(error, EndpointGone)
    assert error.code == "endpoint_gone"
    assert error.answer is not None
    assert error.answer.snippet == "bye"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_to_loopback_is_not_followed(client: WebhookClient, code: int) -> None:
    """A redirect is an answer like any other: nothing is sent to where it points."""
    with FakeWebhook() as canary:
        error = outcome(client, redirect(canary.url, code))
        assert error.code == "endpoint_error"
        assert "Redirects" in error.detail
    assert canary.history.connections == 0


@pytest.mark.parametrize(
    "reaction", [drip_headers(), drip_body(), endless(), hang()], ids=lambda each: each.kind
)
def test_slow_answer_is_given_up_at_the_deadline(client: WebhookClient, reaction: Reaction) -> None:
    """The deadline bounds the request as a whole, also while single bytes keep coming."""
    started = time.monotonic()
    error = outcome(client, reaction)
    assert error.code == "endpoint_timeout"
    assert 0.5 < time.monotonic() - started < 1.5


def test_slow_answer_over_tls_is_given_up_at_the_deadline(
    authority: tuple[ssl.SSLContext, Path],
) -> None:
    """TLS hides the socket; the deadline reaches it all the same."""
    context, file = authority
    for reaction in (drip_headers(), drip_body(), endless(), hang()):
        client = WebhookClient(LOOPBACK, ca_file=str(file), total_seconds=0.6)
        started = time.monotonic()
        with (
            FakeWebhook(answers=[reaction], tls=context) as receiver,
            pytest.raises(EndpointFailed) as caught,
        ):
            post(client, receiver.url)
        client.close()
        assert caught.value.code == "endpoint_timeout"
        assert time.monotonic() - started < 1.5


def test_deadline_also_holds_on_a_connection_that_is_used_again(client: WebhookClient) -> None:
    """A kept connection is watched anew by each request."""
    with FakeWebhook(answers=[status(200), drip_body(), status(200)]) as receiver:
        post(client, receiver.url)
        with pytest.raises(EndpointFailed) as caught:
            post(client, receiver.url)
        post(client, receiver.url)
    assert caught.value.code == "endpoint_timeout"
    assert [request.connection for request in receiver.history.requests] == [1, 1, 2]


@pytest.mark.parametrize("reaction", [reset(), close()], ids=lambda each: each.kind)
def test_lost_connection_is_unreachable_and_never_repeated_by_the_client(
    client: WebhookClient, reaction: Reaction
) -> None:
    """Whether the receiver got it is unknown: the schedule repeats the same id, not the client."""
    assert outcome(client, reaction).code == "endpoint_unreachable"


@pytest.mark.parametrize(
    ("url", "reason"), [("http://127.0.0.1:{port}/", "refused"), ("http://hooks.invalid:{port}/", "name")]
)
def test_refused_and_unknown_hosts_are_unreachable(client: WebhookClient, url: str, reason: str) -> None:
    """Nobody listening and no such name are told apart in the evidence, without the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EndpointFailed) as caught:
        post(client, url.format(port=port))
    assert (caught.value.code, caught.value.evidence) == ("endpoint_unreachable", {"reason": reason})
    assert str(port) not in caught.value.detail


def test_answer_of_a_gigabyte_is_not_read(client: WebhookClient) -> None:
    """What is read of an answer is bounded, and so is the memory it takes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FakeWebhook(answers=[huge(1_000_000_000), status(200)]) as receiver:
        answer = post(client, receiver.url)
        post(client, receiver.url)
    assert len(answer.snippet) == 2048
    assert [request.connection for request in receiver.history.requests] == [1, 2]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10 * 1024


def test_connections_are_kept_for_the_next_webhook(client: WebhookClient) -> None:
    """Webhooks to one host share a connection."""
    with FakeWebhook() as receiver:
        for _ in range(5):
            post(client, receiver.url)
    assert receiver.history.connections == 1


def test_idle_connections_are_dropped(client: WebhookClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that idled is not used again: the other side has probably closed it."""
    monkeypatch.setattr(guarded_http, "IDLE_SECONDS", -1.0)
    with FakeWebhook() as receiver:
        post(client, receiver.url)
        post(client, receiver.url)
    assert receiver.history.connections == 2


def test_many_threads_share_one_client(client: WebhookClient) -> None:
    """One client serves the threads of a process; every webhook arrives once."""
    with FakeWebhook() as receiver, ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: post(client, receiver.url, event_id=f"evt_{n}"), range(40)))
    assert {answer.status for answer in answers} == {200}
    assert sorted(request.webhook_id for request in receiver.history.requests) == sorted(
        f"evt_{n}" for n in range(40)
    )
    assert receiver.history.connections <= 8


def test_forked_child_opens_connections_of_its_own(client: WebhookClient) -> None:
    """A child never writes on the parent's connection, and its deadlines work."""
    with FakeWebhook(answers=[status(200), drip_body(), status(200)]) as receiver:
        post(client, receiver.url)
        child = os.fork()
        if child == 0:
            result = 1
            try:
                post(client, receiver.url)
            except EndpointFailed as error:
                result = 0 if error.code == "endpoint_timeout" else 2
            finally:
                os._exit(result)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        post(client, receiver.url)
    assert [request.connection for request in receiver.history.requests] == [1, 2, 1]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Return a TLS context for 127.0.0.1 and hooks.example, and the file of its authority."""
    made = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.issue_cert("127.0.0.1", "hooks.example").configure_cert(context)
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(file)
    return context, file


def test_unknown_certificate_is_refused_before_anything_is_sent(
    client: WebhookClient, authority: tuple[ssl.SSLContext, Path]
) -> None:
    """A receiver that cannot prove who it is gets nothing."""
    with FakeWebhook(tls=authority[0]) as receiver, pytest.raises(EndpointFailed) as caught:
        post(client, receiver.url)
    assert (caught.value.code, caught.value.evidence) == ("endpoint_unreachable", {"reason": "tls"})
    assert receiver.history.requests == []


def resolver(answers: list[list[str]]) -> Callable[..., list[object]]:
    """Return a stand-in for the DNS that gives the next answers at each question, the last for ever."""

    def getaddrinfo(_host: str, port: int, *_rest: object, **_options: object) -> list[object]:
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo


def test_certificate_and_server_name_are_those_of_the_host(
    authority: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client connects to the checked address but asks for the host's certificate."""
    context, file = authority
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    monkeypatch.setattr(socket, "getaddrinfo", resolver([["127.0.0.1"]]))
    client = WebhookClient(LOOPBACK, ca_file=str(file))
    with FakeWebhook(tls=context) as receiver:
        post(client, f"https://hooks.example:{receiver.port}/a?b=c")
        with pytest.raises(EndpointFailed) as caught:
            post(client, f"https://other.example:{receiver.port}/")
    client.close()
    context.sni_callback = None
    assert names == ["hooks.example", "other.example"]
    assert caught.value.evidence == {"reason": "tls"}
    assert receiver.history.requests[0].path == "/a?b=c"
    assert receiver.history.requests[0].headers["host"] == f"hooks.example:{receiver.port}"


def test_rebinding_name_never_reaches_the_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers public first and loopback next hits nothing: what was checked is connected to."""
    public, inside = ["192.88.98.1"], ["127.0.0.1"]
    attempted: list[object] = []
    real_connect = socket.socket.connect

    def connect(sock: socket.socket, address: object) -> None:
        attempted.append(address)
        if isinstance(address, tuple) and address[0] != "127.0.0.1":
            raise ConnectionRefusedError  # nothing outside is contacted by a test
        real_connect(sock, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
    guard = AddressGuard(production=False)
    client = WebhookClient(guard, total_seconds=2.0)
    with FakeWebhook() as canary:
        for answers in ([public, inside], [inside, public], [[*public, *inside]], [[*inside, *public]]):
            monkeypatch.setattr(socket, "getaddrinfo", resolver(list(answers)))
            for _ in range(4):
                with pytest.raises((EndpointFailed, Permanent)):
                    post(client, f"http://rebind.example:{canary.port}/")
    client.close()
    assert canary.history.connections == 0
    assert {address[0] for address in attempted if isinstance(address, tuple)} == {"192.88.98.1"}


def test_inside_address_is_refused_when_it_is_used() -> None:
    """An endpoint that was public when it was created may lead to the inside later: refused for good."""
    client = WebhookClient(AddressGuard(production=False))
    with FakeWebhook() as canary, pytest.raises(Permanent) as caught:
        post(client, f"http://localhost:{canary.port}/")
    client.close()
    assert caught.value.code == "endpoint_address_forbidden"
    assert "CONFERRAL_WEBHOOK_ALLOW_CIDRS" in caught.value.detail
    assert canary.history.connections == 0


def test_environment_proxies_are_ignored(client: WebhookClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the setting names a proxy; the environment of a process is not asked."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    with FakeWebhook() as receiver:
        assert post(client, receiver.url).status == 200


def test_configured_proxy_gets_the_request_after_the_address_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy is a second layer: the target is still checked first."""
    with FakeWebhook() as proxy:
        client = WebhookClient(LOOPBACK, proxy=f"http://user:secret@127.0.0.1:{proxy.port}")
        post(client, "http://127.0.0.1:9/hook")
        client.close()
        strict = WebhookClient(AddressGuard(production=False), proxy=f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setattr(socket, "getaddrinfo", resolver([["127.0.0.1"]]))
        with pytest.raises(Permanent):
            post(strict, "http://inside.example/hook")
        strict.close()
    request = proxy.history.requests[0]
    assert request.path == "http://127.0.0.1:9/hook"
    assert request.headers["proxy-authorization"].startswith("Basic ")
    assert len(proxy.history.requests) == 1
