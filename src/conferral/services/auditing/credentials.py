# SPDX-License-Identifier: Apache-2.0
"""A1, A2, A5 by credential: state, run, evidence and leaf, read in one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from conferral.domain import audit_credentials
from conferral.domain.audit import Deviation
from conferral.services.auditing.looking import Audit, Finding
from conferral.store import tables
from conferral.store.queries import auditing

_JUDGES = (
    audit_credentials.judge_liveness,
    audit_credentials.judge_evidence,
    audit_credentials.judge_leaf,
)


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at every credential."""

    def judge(ids: Sequence[str]) -> Iterator[Deviation]:
        with audit.rt.database.snapshot() as session:
            rows = auditing.credentials_of(session, ids)
        for row in rows:
            for one in _JUDGES:
                yield from one(row)

    yield from audit.through("credentials", tables.credentials.c.id, judge)
