# SPDX-License-Identifier: Apache-2.0
"""A10 by schedule: the slots that it names, the slots that were fired, and who led meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from conferral.domain.audit import Deviation, Remark
from conferral.domain.audit_slots import Firing, judge_slots
from conferral.reliable.beat import slots_between
from conferral.services.auditing.looking import PAGE, Audit, Finding
from conferral.store.queries import auditing

LOOK_BACK: Final = timedelta(days=31)  # one that fires every minute has 44,640 slots in it


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at every schedule of this installation; without Beat there is nothing to look at."""
    if not audit.schedules:
        yield Remark("A10", "no schedules are known here")
        return
    yield from audit.confirmed(lambda names: _judge(audit, names), sorted(audit.schedules))


def _judge(audit: Audit, names: Sequence[str]) -> Iterator[Deviation]:
    now = audit.rt.database.now()
    fired = {name: _firings(audit, name, now - LOOK_BACK) for name in sorted(audit.schedules)}
    for name in names:
        if not fired[name]:
            continue
        others = sorted(one.at for other, firings in fired.items() if other != name for one in firings)
        expected = slots_between(audit.schedules[name], fired[name][0].slot, now)
        yield from judge_slots(name, expected, fired[name], others, now)
        audit.tell("schedules", names.index(name) + 1, len(names))


def _firings(audit: Audit, name: str, since: datetime) -> list[Firing]:
    found: list[Firing] = []
    after = None
    prefix = f"tick:{name}:"
    while True:
        with audit.rt.database.snapshot() as session:
            rows = auditing.firings_after(session, name, since, after, PAGE)
        for row in rows:
            slot = _slot_of(row.key.removeprefix(prefix))
            if slot is not None:
                found.append(Firing(slot, row.created_at))
        if len(rows) < PAGE:
            return sorted(found, key=lambda one: one.slot)
        after = rows[-1].id


def _slot_of(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
