# SPDX-License-Identifier: Apache-2.0
"""A few words of the Redis protocol on a plain socket: for questions that must stay cheap.

The supervisor asks every few seconds and must not import a client library for it. Plain TCP only.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from io import BufferedReader
from urllib.parse import unquote, urlsplit

# A healthy server on the same machine answers in microseconds.
ANSWER_SECONDS = 1.0
# Our own questions have short answers; a message may be larger than we want to look at.
_LONGEST_ANSWER_BYTES = 1_000_000


class RedisError(Exception):
    """The server refused, or said what we do not understand."""


def ask(
    url: str, *commands: Sequence[str | int], timeout_seconds: float = ANSWER_SECONDS
) -> list[bytes | int | None]:
    """Return the answers of the server of a redis:// URL, with its password and database.

    Raises:
        OSError: it cannot be reached, or not in time.
        RedisError: it refuses.
    """
    parts = urlsplit(url)
    login = [unquote(word) for word in (parts.username, parts.password) if word]
    before: list[Sequence[str | int]] = [("AUTH", *login)] if login else []
    if parts.path.strip("/"):
        before.append(("SELECT", parts.path.strip("/")))
    address = (parts.hostname or "127.0.0.1", parts.port or 6379)
    with socket.create_connection(address, timeout_seconds) as connection:
        connection.sendall(b"".join(_request(words) for words in [*before, *commands]))
        with connection.makefile("rb") as stream:
            return [_answer(stream) for _ in [*before, *commands]][len(before) :]


def _request(words: Sequence[str | int]) -> bytes:
    encoded = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _answer(stream: BufferedReader) -> bytes | int | None:
    line = stream.readline(1024)
    kind, text = line[:1], line[1:].strip()
    if kind == b"+":
        return text
    if kind == b":":
        return int(text)
    if kind == b"$":
        length = int(text)
        if length < 0:
            return None
        if length > _LONGEST_ANSWER_BYTES:
            raise RedisError("the answer is too long")
        return stream.read(length + 2)[:length]
    if not line:
        raise ConnectionError("the server closed the connection")
    raise RedisError(text.decode(errors="replace"))
