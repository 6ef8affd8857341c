# SPDX-License-Identifier: Apache-2.0
"""E-mail contents that the tests of every transport share."""

from __future__ import annotations

import datetime as dt
import hashlib

from conferral.domain.email_message import EmailContent, EmailMessageBytes, ReportContent, compose

CREATED_AT = dt.datetime(2026, 3, 14, 9, 26, 53, tzinfo=dt.UTC)


def content(**changes: object) -> EmailContent:
    """Return the content of one e-mail to a recipient."""
    values: dict[str, object] = {
        "message_id": "<cred_01hx.issued.1@mail.school.example>",
        "date": CREATED_AT,
        "delivery_id": "dlv_01hx",
        "from_name": "Open School",
        "from_address": "credentials@mail.school.example",
        "reply_to": "office@school.example",
        "recipient_name": "Zoë Müller",
        "recipient_address": "zoe.mueller@students.example",
        "locale": "en",
        "organisation_name": "Open School",
        "organisation_id": "org_01hx",
        "credential_title": "Introduction to Databases",
        "credential_id": "cred_01hx",
        "credential_url": "https://credentials.school.example/c/4fGh2",
        "unsubscribe_url": "https://credentials.school.example/u/9kLm3",
    }
    return EmailContent(**{**values, **changes})  # type: ignore[arg-type]


def report(**changes: object) -> ReportContent:
    """Return the content of one daily report."""
    values: dict[str, object] = {
        "message_id": "<org_01hx.daily_report.20260314@mail.school.example>",
        "date": CREATED_AT,
        "delivery_id": "dlv_02hx",
        "from_name": "Open School",
        "from_address": "credentials@mail.school.example",
        "recipient_name": "Owner",
        "recipient_address": "owner@school.example",
        "locale": "en",
        "organisation_name": "Open School",
        "organisation_id": "org_01hx",
        "report_date": dt.date(2026, 3, 13),
        "console_url": "https://credentials.school.example/console",
        "figures": {"issued": 1994, "failed": 2, "emails_sent": 1990, "emails_failed": 4},
    }
    return ReportContent(**{**values, **changes})  # type: ignore[arg-type]


def message(
    to: str = "zoe.mueller@students.example", *, number: int = 1, attempt: int = 1
) -> EmailMessageBytes:
    """Return one composed message; `number` tells several apart."""
    composed = compose(
        content(
            recipient_address=to,
            message_id=f"<cred_{number:04}.issued.1@mail.school.example>",
            delivery_id=f"dlv_{number:04}",
        )
    )
    return composed.at_attempt(attempt)


def large_message(size: int = 24_000_000) -> EmailMessageBytes:
    """Return a message that fills every buffer on its way, so that a server can fail in the middle of it."""
    line = b"x" * 998 + b"\r\n"
    body = b"Message-ID: <large@mail.school.example>\r\n\r\n" + line * (size // len(line))
    return EmailMessageBytes(
        content=body,
        envelope_from="credentials@mail.school.example",
        envelope_to="zoe.mueller@students.example",
        message_id="<large@mail.school.example>",
        delivery_id="dlv_large",
        sha256=hashlib.sha256(body).hexdigest(),
    )
