# SPDX-License-Identifier: Apache-2.0
"""A11: what belongs to one organisation refers to nothing of another; nor does test to live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Column
from sqlalchemy.orm import Session

from conferral.domain.audit import Deviation
from conferral.reliable.tables import runs
from conferral.services.auditing.looking import Audit, Finding
from conferral.store import tables
from conferral.store.queries import auditing_tenants as foreign

_Ask = Callable[[Session, Sequence[str]], list[tuple[str, str]]]

_TABLES: Final[tuple[tuple[str, Column[Any], _Ask], ...]] = (
    ("tenants of credentials", tables.credentials.c.id, foreign.of_credentials),
    ("tenants of deliveries", tables.deliveries.c.id, foreign.of_deliveries),
    ("tenants of events", tables.events.c.id, foreign.of_events),
    ("tenants of runs", runs.c.id, foreign.of_runs),
    ("tenants of messages", tables.mailbox.c.id, foreign.of_messages),
)


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at every row that refers to others."""
    for what, column, ask in _TABLES:
        yield from audit.through(what, column, _judge(audit, ask))


def _judge(audit: Audit, ask: _Ask) -> Callable[[Sequence[str]], Iterator[Deviation]]:
    def judge(ids: Sequence[str]) -> Iterator[Deviation]:
        with audit.rt.database.snapshot() as session:
            found = ask(session, ids)
        for key, what in found:
            yield Deviation("A11", key, f"refers to a {what} of another organisation or mode", key=key)

    return judge
