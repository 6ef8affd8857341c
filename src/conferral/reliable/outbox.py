# SPDX-License-Identifier: Apache-2.0
"""What a transaction leaves to be done after its commit: bells to ring, results to show.

Both are best effort. A bell that was not rung is rung by the dispatcher; a result that was
not shown is still in the row, which is what everybody of ours reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from conferral.reliable.routing import Routing

_TERMS = "conferral.reliable.terms"
_OUTBOX = "conferral.reliable.outbox"


@dataclass(frozen=True, slots=True)
class Terms:
    """What every promise needs to know and no caller should have to say.

    Attributes:
        routing: which queue a task belongs to.
        now: the clock that all hosts share.
    """

    routing: Routing
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Ring:
    """A run that is due now and alone."""

    run_id: str
    task: str
    queue: str


@dataclass(frozen=True, slots=True)
class Shown:
    """The state of an interactive run, for whoever holds its AsyncResult."""

    run_id: str
    state: str
    result: Any


@dataclass(slots=True)
class Outbox:
    """What is to be done once the transaction stands."""

    rings: list[Ring] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rings or self.shown)


def session_info(terms: Terms) -> dict[Any, Any]:
    """Return the `info` that a session needs so that runs can be promised in it."""
    return {_TERMS: terms}


def terms_of(session: Session) -> Terms:
    """Return the terms a session was opened with."""
    terms: Terms = session.info[_TERMS]
    return terms


def outbox_of(session: Session) -> Outbox:
    """Return the session's outbox, made at first use."""
    outbox: Outbox = session.info.setdefault(_OUTBOX, Outbox())
    return outbox


def take_outbox(session: Session) -> Outbox:
    """Return the outbox after the commit and leave an empty one."""
    outbox: Outbox = session.info.pop(_OUTBOX, None) or Outbox()
    return outbox
