# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from conferral.domain.webhook_event import (
    EVENT_TYPES,
    SignatureInvalid,
    event_body,
    generate_secret,
    sign,
    verify,
    wants,
)

SECRET = generate_secret(bytes(range(32)))
OTHER = generate_secret(bytes(range(1, 33)))
NOW = dt.datetime.now(dt.UTC)
SECONDS = int(NOW.timestamp())
BODY = event_body("ping", NOW, {"livemode": False})


def headers(*secrets: str, seconds: int | None = None, body: bytes = BODY) -> dict[str, str]:
    """Return the three headers of a webhook signed at that time, or now: receivers refuse older ones."""
    seconds = int(time.time()) if seconds is None else seconds
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": sign(secrets, "evt_1", seconds, body),
    }


def test_body_is_compact_json_in_the_order_of_the_standard() -> None:
    """The frozen bytes are type, timestamp, data, with the time in UTC."""
    moment = dt.datetime(2026, 3, 14, 10, 26, 53, 120_000, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    body = event_body("credential.issued", moment, {"credential_id": "cred_1", "external_id": "É"})
    assert (
        body
        == (
            '{"type":"credential.issued","timestamp":"2026-03-14T09:26:53.120Z",'
            '"data":{"credential_id":"cred_1","external_id":"É"}}'
        ).encode()
    )


def test_body_of_20_kb_is_refused() -> None:
    """Receivers refuse large bodies, so none is ever made."""
    with pytest.raises(ValueError, match="20000"):
        event_body("ping", NOW, {"x": "a" * 20_000})


@pytest.mark.parametrize(
    ("kind", "moment", "data"),
    [
        ("credential.isued", NOW, {}),
        ("ping", dt.datetime(2026, 1, 1), {}),  # noqa: DTZ001 - a naive time is the point
        ("ping", NOW, {"x": float("nan")}),
    ],
)
def test_body_of_nonsense_is_refused(kind: str, moment: dt.datetime, data: dict[str, object]) -> None:
    """An unknown type, a naive time and what is no JSON are programming errors."""
    with pytest.raises(ValueError, match=r"event type|aware|JSON"):
        event_body(kind, moment, data)


@given(st.binary(min_size=24, max_size=64), st.text(max_size=200))
def test_standard_library_verifies_what_we_sign(random_bytes: bytes, text: str) -> None:
    """The reference implementation of Standard Webhooks accepts every signature we make."""
    secret = generate_secret(random_bytes)
    body = json.dumps({"text": text}).encode()
    Webhook(secret).verify(body, headers(secret, body=body))


def test_both_secrets_verify_while_one_is_rotated() -> None:
    """While a secret is rotated a receiver may know the old one or the new one."""
    both = headers(SECRET, OTHER)
    assert both["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(BODY, both)
        verify(secret, both, BODY, now_seconds=int(time.time()))


def test_verify_agrees_with_the_standard_library_on_forgeries() -> None:
    """A changed body, another secret, another id: none passes, here or there."""
    good = headers(SECRET)
    for changed, body in [
        (headers(OTHER), BODY),
        (good, BODY + b" "),
        ({**good, "webhook-id": "evt_2"}, BODY),
        ({**good, "webhook-signature": ""}, BODY),
        ({**good, "webhook-signature": "v1a," + good["webhook-signature"][3:]}, BODY),
    ]:
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body, changed)
        with pytest.raises(SignatureInvalid):
            verify(SECRET, changed, body, now_seconds=int(time.time()))


@pytest.mark.parametrize("away", [-301, 301])
def test_verify_refuses_when_the_time_is_far_away(away: int) -> None:
    """A replayed webhook is recognised by its timestamp after five minutes."""
    with pytest.raises(SignatureInvalid, match="300 seconds"):
        verify(SECRET, headers(SECRET, seconds=SECONDS), BODY, now_seconds=SECONDS + away)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_verify_names_the_header_that_is_missing(missing: str) -> None:
    """Whoever sets a receiver up reads what it lacks."""
    received = {name.upper(): value for name, value in headers(SECRET).items() if name != missing}
    with pytest.raises(SignatureInvalid, match=missing):
        verify(SECRET, received, BODY, now_seconds=int(time.time()))
    with pytest.raises(SignatureInvalid, match="number"):
        verify(SECRET, {**headers(SECRET), "webhook-timestamp": "soon"}, BODY, now_seconds=int(time.time()))


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_abc", "whsec_" + "A" * 28, "AAAA" * 11, "whsec_Ä" + "A" * 43]
)
def test_weak_or_broken_secrets_are_refused(secret: str) -> None:
    """A secret is whsec_ and 24 to 64 bytes; anything else must not sign."""
    with pytest.raises(ValueError, match="secret"):
        sign([secret], "evt_1", SECONDS, BODY)
    with pytest.raises(ValueError, match="secret"):
        sign([], "evt_1", SECONDS, BODY)
    with pytest.raises(ValueError, match="24 to 64"):
        generate_secret(bytes(23))


def test_endpoint_without_filter_gets_all_but_what_is_unasked() -> None:
    """Without a filter every event comes but email.sent; a filter is exact; a ping always comes."""
    assert [kind for kind in EVENT_TYPES if not wants(None, kind)] == ["email.sent"]
    assert [kind for kind in EVENT_TYPES if wants(["email.sent"], kind)] == ["email.sent", "ping"]
    assert wants([], "credential.issued")
