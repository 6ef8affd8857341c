# SPDX-License-Identifier: Apache-2.0
"""The figures of a day."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conferral.store.tables import credentials, deliveries


def figures(session: Session, organisation_id: str, since: datetime, until: datetime) -> dict[str, int]:
    """Count what an organisation issued, failed and delivered in a span of time."""

    def count(table: Any, moment: Any, *conditions: Any) -> int:
        counted: int = session.execute(
            select(func.count())
            .select_from(table)
            .where(table.c.organisation_id == organisation_id, moment >= since, moment < until, *conditions)
        ).scalar_one()
        return counted

    def delivered(channel: str, state: str) -> int:
        moment = deliveries.c.sent_at if state == "sent" else deliveries.c.created_at
        return count(deliveries, moment, deliveries.c.channel == channel, deliveries.c.state == state)

    requested = credentials.c.created_at
    return {
        "issued": count(credentials, credentials.c.issued_at),
        "waiting": count(credentials, requested, credentials.c.state.in_(("queued", "issuing"))),
        "failed": count(credentials, requested, credentials.c.state == "failed"),
        "emails_sent": delivered("email", "sent"),
        "emails_failed": delivered("email", "failed"),
        "webhooks_delivered": delivered("webhook", "sent"),
        "webhooks_failed": delivered("webhook", "failed"),
    }
