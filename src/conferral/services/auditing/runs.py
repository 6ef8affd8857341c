# SPDX-License-Identifier: Apache-2.0
"""A8 and A9 by run: its attempts, and who replayed it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from conferral.domain import audit_runs
from conferral.domain.audit import Deviation
from conferral.reliable.tables import runs
from conferral.services.auditing.looking import Audit, Finding
from conferral.store.queries import auditing


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at every run."""

    def judge(ids: Sequence[str]) -> Iterator[Deviation]:
        with audit.rt.database.still() as session:
            rows = auditing.runs_of(session, ids)
            history: dict[str, list[Any]] = defaultdict(list)
            for one in auditing.attempts_of(session, ids):
                history[one.run_id].append(one)
            resumed = [run_id for run_id, attempts in history.items() if audit_runs.ends_followed(attempts)]
            replays = auditing.replays_of(session, resumed) if resumed else {}
        for row in rows:
            attempts = history[row.id]
            yield from audit_runs.judge_history(row, attempts, limit=audit.limits.get(row.task))
            yield from audit_runs.judge_ends(row, attempts, replays.get(row.id, []))
            yield from audit_runs.judge_due(row, attempts)

    yield from audit.through("runs", runs.c.id, judge)
