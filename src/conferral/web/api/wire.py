# SPDX-License-Identifier: Apache-2.0
"""How things look on the wire: rows become JSON objects here, and every key is always present."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from conferral.domain.problems import PROBLEMS
from conferral.reliable.status import RunStatus, TimelineEntry
from conferral.reliable.tables import RETRY, SUCCESS
from conferral.services.runtime import Runtime
from conferral.store.records import Record


def moment(value: datetime | None) -> str | None:
    """Return a time as RFC 3339 in UTC, to the millisecond."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def day(value: date | None) -> str | None:
    """Return a date as YYYY-MM-DD."""
    return value.isoformat() if value is not None else None


def error(code: str | None, detail: str | None) -> dict[str, str] | None:
    """Return a run's error: its code, and what it means in words."""
    if code is None:
        return None
    kind = PROBLEMS.get(code)
    message = detail or (kind.title if kind is not None else "Something failed")
    return {"code": code, "message": message}


def task_status(found: RunStatus, *, possible_duplicate: bool) -> dict[str, Any]:
    """Return the status of a run; see the API reference for the meaning of each key."""
    subject = found.subject or ""
    return {
        "task_id": found.id,
        "task": found.task,
        "state": found.state,
        "waiting_for": found.waiting_for,
        "result": found.result if found.state == SUCCESS else None,
        "error": error(found.error_code, found.error_detail),
        "retry_count": found.retry_count,
        "snooze_count": found.snooze_count,
        "next_retry_at": moment(found.next_retry_at) if found.state == RETRY else None,
        "possible_duplicate": possible_duplicate,
        "credential_id": subject if subject.startswith("cred_") else None,
        "queued_at": moment(found.queued_at),
        "started_at": moment(found.started_at),
        "finished_at": moment(found.finished_at),
    }


def timeline_entry(entry: TimelineEntry, *, possible_duplicate: bool) -> dict[str, Any]:
    """Return a run with its attempts."""
    return {
        **task_status(entry.run, possible_duplicate=possible_duplicate),
        "attempts": [
            {
                "number": attempt.number,
                "outcome": attempt.outcome,
                "started_at": moment(attempt.started_at),
                "finished_at": moment(attempt.finished_at),
                "error": error(attempt.error_code, attempt.error_detail),
                "evidence": attempt.evidence,
            }
            for attempt in entry.attempts
        ],
    }


def credential(rt: Runtime, row: Record) -> dict[str, Any]:
    """Return a credential (a row of `listing.credential`)."""
    here = f"/v1/credentials/{row.id}"
    is_signed = row.pdf_sha256 is not None
    return {
        "id": row.id,
        "state": row.state,
        "expired": row.expires_on is not None and row.expires_on < rt.today(),
        "livemode": row.mode == "live",
        "external_id": row.external_id,
        "template_id": row.template_id,
        "template": row.template_name,
        "batch_id": row.batch_id,
        "recipient": {
            "name": row.recipient_name,
            "email": row.recipient_email,
            "locale": row.recipient_locale,
        },
        "fields": row.fields,
        "issued_on": day(row.issued_on),
        "expires_on": day(row.expires_on),
        "task_id": row.run_id,
        "error": error(row.failure_code, row.failure_detail),
        "created_at": moment(row.created_at),
        "issued_at": moment(row.issued_at),
        "status_reason": row.status_reason,
        "status_changed_at": moment(row.status_changed_at),
        "supersedes": row.supersedes,
        "superseded_by": row.superseded_by,
        "links": {
            "self": rt.url(here),
            "page": rt.url(f"/c/{row.token}"),
            "timeline": rt.url(f"{here}/timeline"),
            "status": rt.url(f"/tasks/{row.run_id}/status") if row.run_id is not None else None,
            "pdf": rt.url(f"{here}/pdf") if is_signed else None,
            "vc": rt.url(f"{here}/vc.json") if is_signed else None,
            "proof": rt.url(f"{here}/proof") if is_signed else None,
        },
    }


def endpoint(row: Record) -> dict[str, Any]:
    """Return a webhook endpoint; its secret was shown once."""
    return {
        "id": row.id,
        "url": row.url,
        "event_types": list(row.event_types),
        "state": row.state,
        "temporary": row.temporary,
        "livemode": row.mode == "live",
        "failures": row.failures,
        "paused_until": moment(row.closed_until),
        "last_success_at": moment(row.last_success_at),
        "created_at": moment(row.created_at),
    }


def message(row: Record) -> dict[str, Any]:
    """Return a captured message without its source."""
    return {
        "id": row.id,
        "message_id": row.message_id,
        "recipient": row.recipient,
        "subject": row.subject,
        "kind": row.kind,
        "credential_id": row.credential_id,
        "received_at": moment(row.received_at),
    }
