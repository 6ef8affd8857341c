# SPDX-License-Identifier: Apache-2.0
"""Periodic work: forget what may be forgotten, and find what should never be lost."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from sqlalchemy.orm import Session

from conferral.domain import credential
from conferral.reliable import dead_letters, status
from conferral.reliable.runs import Run
from conferral.reliable.tables import LIVE_STATES
from conferral.services import anchoring, status_lists
from conferral.services.runtime import Runtime
from conferral.services.signing_documents import DOCUMENTS_KEPT
from conferral.store.queries import bookkeeping, credentials, log, signed_documents, tenancy

logger = logging.getLogger(__name__)

ANSWERS_KEPT: Final = timedelta(hours=72)  # published: how long an Idempotency-Key is remembered
MESSAGES_KEPT: Final = timedelta(days=7)
STUCK_AFTER: Final = timedelta(minutes=15)
LEAF_STUCK_AFTER: Final = timedelta(seconds=30)
STUCK_LIMIT: Final = 1_000  # a pass; the next one goes on


def purge_expired_sessions(rt: Runtime, run: Run) -> None:
    """Delete expired sessions, old stored answers, documents and old captured mail."""
    now = rt.database.now()
    with rt.database.transaction() as session:
        counts = {
            "sessions": tenancy.purge_sessions(session, now),
            "stored_answers": bookkeeping.purge_answers(session, now - ANSWERS_KEPT),
            "signed_documents": signed_documents.clear(session, now - DOCUMENTS_KEPT),
            "captured_messages": bookkeeping.purge_messages(session, now - MESSAGES_KEPT),
        }
        run.settle(session, counts)
    rt.database.vacuum()


def retry_stuck(rt: Runtime, run: Run) -> None:
    """Revive the work of credentials that are not final and have no live run.

    It should never find one. If it does, something promised was lost: it says so loudly,
    because the cause is a defect and not a fault of the day.
    """
    now = rt.database.now()
    with rt.database.transaction() as session:
        revived = [
            row.id
            for row in credentials.unfinished_before(session, now - STUCK_AFTER, STUCK_LIMIT)
            if _revive(rt, session, row.run_id, row.state)
        ]
        for name in anchoring.LOGS:
            oldest = log.oldest_unsequenced(session, name)
            if oldest is not None and now - oldest > LEAF_STUCK_AFTER:
                anchoring.promise_turn(session, name)
        lists = status_lists.catch_up(rt, session)
        run.settle(session, {"revived": len(revived), "lists": lists})
    for credential_id in revived:
        logger.error("stuck_credential_revived", extra={"credential_id": credential_id, "code": "internal"})


def _revive(rt: Runtime, session: Session, run_id: str, state: str) -> bool:
    current = status.status_of(session, run_id)
    if current is None or current.state in LIVE_STATES:
        return False
    if state == credential.ISSUING:
        return False  # its leaf waits: the log's next turn issues it
    if not dead_letters.revive(session, run_id):
        return False
    # The history of this run goes on after its end: the audit wants to know who said so.
    bookkeeping.audit(
        session, organisation_id=None, actor="system", action="run.revived", subject=run_id,
        created_at=rt.database.now(),
    )  # fmt: skip
    return True
