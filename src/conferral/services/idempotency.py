# SPDX-License-Identifier: Apache-2.0
"""Idempotency-Key: a repeated request gets the stored answer; row, answer and promise are one commit."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from conferral.domain.problems import Problem
from conferral.services.runtime import Caller, Runtime
from conferral.store.engine import limit_lock_wait
from conferral.store.queries import bookkeeping

WAIT_SECONDS: Final = 2.0  # for the first request with the same key; on SQLite its one writer's queue
LOCK_NOT_AVAILABLE: Final = "55P03"  # PostgreSQL: the first request still holds its row

_KEY: Final = re.compile(r'"?([\x21\x23-\x7e]{1,255})"?')


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: status, headers worth repeating, body."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_replayed: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A request that may be a repetition.

    Attributes:
        operation: method and path.
        key: the Idempotency-Key, bare.
        fingerprint: SHA-256 of method, path and canonical body.
    """

    operation: str
    key: str
    fingerprint: bytes


class AnsweredMeanwhile(Exception):
    """Somebody else answered the same question first: roll back, then read their answer."""


def read_key(header: str | None) -> str | None:
    """Return the key of a header, quoted or bare; None if there is none.

    Raises:
        Problem: `idempotency_key_invalid`.
    """
    if header is None:
        return None
    matched = _KEY.fullmatch(header.strip())
    if matched is None:
        raise Problem("idempotency_key_invalid", "send at most 255 visible ASCII characters")
    return matched.group(1)


def fingerprint(operation: str, body: bytes) -> bytes:
    """Return what tells a repetition from another request under the same key."""
    return hashlib.sha256(operation.encode() + b"\n" + body).digest()


def earlier_answer(session: Session, caller: Caller, question: Question) -> Answer | None:
    """Return the stored answer to a question.

    Raises:
        Problem: `idempotency_key_reused` when the key belongs to another request.
    """
    row = bookkeeping.stored_answer(
        session, caller.organisation_id, caller.mode, question.operation, question.key
    )
    if row is None:
        return None
    if row.fingerprint != question.fingerprint:
        raise Problem("idempotency_key_reused", "this key was sent with another body; use a fresh one")
    return Answer(row.status, dict(row.headers), row.body, is_replayed=True)


def reserve(rt: Runtime, session: Session, caller: Caller, question: Question) -> None:
    """Take the key, first of all: who sends it again meanwhile waits here, and no lock of the work is held.

    Raises:
        AnsweredMeanwhile: the same question was answered by somebody else.
        Problem: `idempotency_in_progress` when it is being answered for WAIT_SECONDS now.
    """
    limit_lock_wait(session, WAIT_SECONDS)
    try:
        bookkeeping.reserve_answer(
            session,
            organisation_id=caller.organisation_id,
            mode=caller.mode,
            operation=question.operation,
            key=question.key,
            fingerprint=question.fingerprint,
            created_at=rt.database.now(),
        )
    except IntegrityError as taken:
        raise AnsweredMeanwhile(question.key) from taken
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        raise in_progress() from None


def remember(session: Session, caller: Caller, question: Question, answer: Answer) -> None:
    """Store the answer under the reserved key, in the commit of what it says."""
    whose = (caller.organisation_id, caller.mode, question.operation, question.key)
    bookkeeping.store_answer(session, whose, status=answer.status, headers=answer.headers, body=answer.body)


def in_progress() -> Problem:
    """Return what is told to who repeats a request that is still being answered."""
    return Problem("idempotency_in_progress", "the first request with this key is still running")
