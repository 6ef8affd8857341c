# SPDX-License-Identifier: Apache-2.0
"""What a webhook says and how it is signed: Standard Webhooks 1.0.

The body of an event is made once, kept as bytes and never made again: every endpoint and every
attempt gets those bytes. It holds ids and links, never a name or an address.
Only the timestamp and the signature belong to an attempt.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

EVENT_TYPES: Final = (
    "credential.issued",
    "credential.anchored",
    "credential.failed",
    "credential.revoked",
    "credential.suspended",
    "credential.reinstated",
    "credential.superseded",
    "credential.resigned",
    "credential.erased",
    "email.sent",
    "email.bounced",
    "batch.completed",
    "endpoint.disabled",
    "ping",
)
UNASKED_EVENT_TYPES: Final = frozenset({"email.sent"})
"""One for every credential and of little news: an endpoint gets these only when it asks for them."""

MAX_BODY_BYTES: Final = 20_000
"""Standard Webhooks advises payloads below 20 KB; receivers commonly refuse more."""
TOLERANCE_SECONDS: Final = 300
"""How old or how early a signature may be; the figure the standard's own libraries use."""
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the standard's prefix, no secret
SECRET_BYTES: Final = 32
"""How many random bytes a new secret is made of; the standard allows 24 to 64."""
_ALLOWED_SECRET_BYTES: Final = range(24, 65)
_SIGNATURE_VERSION: Final = "v1"


class SignatureInvalid(Exception):
    """The webhook was not signed with this secret, or too long ago."""


def event_body(event_type: str, timestamp: dt.datetime, data: Mapping[str, Any]) -> bytes:
    """Return the frozen body of an event: `{"type", "timestamp", "data"}` as UTF-8 JSON.

    `timestamp` is aware, and is when the event happened. `data` keeps its order.

    Raises:
        ValueError: an unknown type, a naive time, a value that is not JSON, or 20,000 bytes or more.
    """
    if event_type not in EVENT_TYPES:
        raise ValueError(f"there is no event type {event_type!r}")
    if timestamp.tzinfo is None:
        raise ValueError("the timestamp of an event must be an aware time")
    moment = timestamp.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"type": event_type, "timestamp": moment, "data": data}
    body = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(body) >= MAX_BODY_BYTES:
        raise ValueError(
            f"an event of type {event_type} has {len(body)} bytes; the limit is {MAX_BODY_BYTES}"
        )
    return body


def generate_secret(random_bytes: bytes) -> str:
    """Return a new signing secret, `whsec_` and base64 of the bytes the caller drew at random.

    >>> generate_secret(bytes(24))
    'whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
    """
    if len(random_bytes) not in _ALLOWED_SECRET_BYTES:
        raise ValueError("a webhook secret is made of 24 to 64 random bytes")
    return SECRET_PREFIX + base64.b64encode(random_bytes).decode("ascii")


def sign(secrets: str | Sequence[str], event_id: str, timestamp_seconds: int, body: bytes) -> str:
    """Return the `webhook-signature` header: one `v1,<base64>` for each secret, separated by spaces.

    While a secret is being rotated there are two, and a receiver accepts either.

    Raises:
        ValueError: no secret, or one that is not `whsec_` and base64 of 24 to 64 bytes.
    """
    every = [secrets] if isinstance(secrets, str) else list(secrets)
    if not every:
        raise ValueError("a webhook cannot be signed without a secret")
    message = b"%s.%d.%s" % (event_id.encode(), timestamp_seconds, body)
    return " ".join(f"{_SIGNATURE_VERSION},{_mac(_key(secret), message)}" for secret in every)


def verify(
    secrets: str | Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_seconds: float,
    tolerance_seconds: int = TOLERANCE_SECONDS,
) -> None:
    """Return if the request was signed with one of the secrets, not long ago.

    `headers` are looked up without regard to case: `webhook-id`, `webhook-timestamp`, `webhook-signature`.

    Raises:
        SignatureInvalid: with the reason.
    """
    received = {name.lower(): value for name, value in headers.items()}
    try:
        event_id, signatures = received["webhook-id"], received["webhook-signature"]
        timestamp = int(received["webhook-timestamp"])
    except KeyError as missing:
        raise SignatureInvalid(f"the header {missing.args[0]} is missing") from None
    except ValueError:
        raise SignatureInvalid("webhook-timestamp is not a number of seconds") from None
    if abs(now_seconds - timestamp) > tolerance_seconds:
        raise SignatureInvalid(f"webhook-timestamp is more than {tolerance_seconds} seconds away from now")
    expected = sign(secrets, event_id, timestamp, body).split(" ")
    if not any(
        hmac.compare_digest(ours.encode(), theirs.encode())
        for theirs in signatures.split(" ")
        for ours in expected
    ):
        raise SignatureInvalid("no signature was made with this secret for this body")


def wants(event_filter: Collection[str] | None, event_type: str) -> bool:
    """Whether an endpoint gets an event: by its filter, or all but the unasked ones if it has none.

    A `ping` is addressed to one endpoint by a person, so no filter holds it back.

    >>> wants(None, "credential.issued"), wants([], "email.sent"), wants(["email.sent"], "email.sent")
    (True, False, True)
    """
    if event_type == "ping":
        return True
    if event_filter:
        return event_type in event_filter
    return event_type not in UNASKED_EVENT_TYPES


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) not in _ALLOWED_SECRET_BYTES:
        raise ValueError("a webhook secret is whsec_ followed by base64 of 24 to 64 bytes")
    return key


def _mac(key: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode("ascii")
