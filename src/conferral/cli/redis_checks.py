# SPDX-License-Identifier: Apache-2.0
"""Whether a Redis of somebody else is fit to carry our messages: version, policy, memory, file, password.

Asked by `conferral up` for a server that a setting names, and by `conferral doctor` for any.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from conferral.cli.findings import Finding, bad, good, warning
from conferral.cli.redis_server import OLDEST

ANSWER_SECONDS = 5.0
# Above this the server is close to refusing our messages.
FULL_RATIO = 0.8
_CHECK = "redis"


def findings(url: str) -> Iterator[Finding]:
    """Yield what is good and bad about a Redis or Valkey server; one finding when it does not answer."""
    import redis

    host = urlsplit(url).hostname or "its socket"
    try:
        with redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            decode_responses=True,
            # The newer protocol begins with HELLO, which the servers that are too old do not know.
            protocol=2,
        ) as client:
            info: dict[str, Any] = client.info()
            yield from _version(info)
            yield from _configuration(client)
            yield from _memory(info)
    except redis.AuthenticationError:
        fix = "correct the password in CONFERRAL_REDIS_URL"
        yield bad(_CHECK, f"{host} refuses our password", fix, stops=True)
    except redis.ResponseError:
        fix = "name a Redis or Valkey server in CONFERRAL_REDIS_URL, with a user that may do everything"
        yield bad(_CHECK, f"{host} refuses what we ask", fix)
    except redis.RedisError as error:
        fix = "start it, or correct CONFERRAL_REDIS_URL; what is due waits in the database meanwhile"
        yield bad(_CHECK, f"{host} does not answer ({type(error).__name__})", fix)
    else:
        yield from _password(url)


def _version(info: dict[str, Any]) -> Iterator[Finding]:
    text = str(info.get("valkey_version") or info.get("redis_version") or "0")
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if version >= OLDEST:
        yield good(_CHECK, f"version {text}")
    else:
        oldest = ".".join(map(str, OLDEST))
        fix = (
            f"name a Redis or Valkey {oldest} or newer in CONFERRAL_REDIS_URL, or leave it empty for our own"
        )
        yield bad(_CHECK, f"version {text} is too old", fix, stops=True)


def _configuration(client: Any) -> Iterator[Finding]:
    import redis

    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "")
        appends = client.config_get("appendonly").get("appendonly", "")
    except redis.ResponseError:
        # Hosted servers hide their configuration.
        yield warning(_CHECK, "it does not show its configuration", "make sure of noeviction and appendonly")
        return
    if policy == "noeviction":
        yield good(_CHECK, "it never evicts")
    else:
        yield bad(
            _CHECK,
            f"maxmemory-policy {policy} drops whole queues without an error",
            "CONFIG SET maxmemory-policy noeviction, and write it into its configuration",
        )
    if appends != "yes":
        yield warning(
            _CHECK,
            "it does not keep its messages on disk: after a restart they are rung again",
            "CONFIG SET appendonly yes",
        )


def _memory(info: dict[str, Any]) -> Iterator[Finding]:
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and used > limit * FULL_RATIO:
        yield bad(
            _CHECK, f"{used / limit:.0%} of its memory is used", "give it more memory, or look what fills it"
        )


def _password(url: str) -> Iterator[Finding]:
    if not urlsplit(url).password and urlsplit(url).scheme != "unix":
        yield warning(
            _CHECK,
            "it takes orders without a password: whoever reaches it can stop our workers",
            "set requirepass there and the password in CONFERRAL_REDIS_URL",
        )
