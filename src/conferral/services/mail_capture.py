# SPDX-License-Identifier: Apache-2.0
"""The captured mailbox: where test mail goes, and all mail while no server is configured."""

from __future__ import annotations

from collections.abc import Callable
from email import policy
from email.parser import BytesHeaderParser
from uuid import UUID

from conferral.adapters.captured_mail import CapturedMessage
from conferral.domain.ids import prefixed
from conferral.reliable.errors import Retryable
from conferral.reliable.ids import new_run_id
from conferral.store.engine import Database
from conferral.store.queries import bookkeeping, deliveries


def saver(database: Database) -> Callable[[CapturedMessage], None]:
    """Return the function that puts a message into the mailbox of its delivery's organisation."""

    def save(message: CapturedMessage) -> None:
        # Only the header is wanted; parsing the body, too, costs ten times as much.
        header, _, _ = message.content.partition(b"\r\n\r\n")
        parsed = BytesHeaderParser(policy=policy.default).parsebytes(header + b"\r\n\r\n")
        with database.transaction() as session:
            delivery = deliveries.delivery(session, message.delivery_id)
            if delivery is None:
                raise Retryable("internal", f"there is no delivery {message.delivery_id}")
            bookkeeping.keep_message(
                session,
                id=prefixed("msg", UUID(new_run_id()).int),
                organisation_id=delivery.organisation_id,
                delivery_id=message.delivery_id,
                message_id=message.message_id,
                recipient=message.envelope_to,
                subject=str(parsed["Subject"] or "")[:400],
                source=message.content,
                received_at=database.now(),
            )

    return save
