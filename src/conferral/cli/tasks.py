# SPDX-License-Identifier: Apache-2.0
"""A run and its attempts in words and in JSON, the same for every command that shows one."""

from __future__ import annotations

from typing import Any

from conferral.cli import showing
from conferral.domain.problems import PROBLEMS
from conferral.reliable.status import RunStatus
from conferral.reliable.tables import FAILURE, RETRY, REVOKED, SUCCESS

FINAL = (SUCCESS, FAILURE, REVOKED)
SHOWN_EVIDENCE = 6  # facts a line; all of them are in the JSON
SHOWN_CHARACTERS = 64  # a SHA-256 in hexadecimal
_COLOURS = {SUCCESS: showing.GREEN, FAILURE: showing.RED, RETRY: showing.YELLOW}
_NAMES = {
    "issue_credential": "Issue",
    "send_issuance_email": "E-mail",
    "send_status_email": "E-mail about its standing",
    "send_report_email": "Report mail",
    "post_event": "Webhook",
    "expand_batch": "Expand batch",
    "sequence": "Log",
}


def name_of(task: str) -> str:
    """Return what a task is called on a page: `Issue`, `E-mail`, `Webhook`."""
    short = task.rpartition(".")[2]
    return _NAMES.get(short, short.replace("_", " ").capitalize())


def error_of(code: str | None, detail: str | None) -> dict[str, str] | None:
    """Return a run's error: its code, and what it means in words."""
    if code is None:
        return None
    known = PROBLEMS.get(code)
    return {"code": code, "message": detail or (known.title if known else "Something failed")}


def record_of(found: RunStatus, *, possible_duplicate: bool = False) -> dict[str, Any]:
    """Return a run with the keys of `GET /tasks/<task_id>/status`."""
    subject = found.subject or ""
    return {
        "task_id": found.id,
        "task": found.task,
        "state": found.state,
        "waiting_for": found.waiting_for,
        "result": found.result if found.state == SUCCESS else None,
        "error": error_of(found.error_code, found.error_detail),
        "retry_count": found.retry_count,
        "snooze_count": found.snooze_count,
        "next_retry_at": found.next_retry_at,
        "possible_duplicate": possible_duplicate,
        "credential_id": subject if subject.startswith("cred_") else None,
        "queued_at": found.queued_at,
        "started_at": found.started_at,
        "finished_at": found.finished_at,
    }


def line_of(found: RunStatus, *, possible_duplicate: bool = False) -> str:
    """Return a run in one line."""
    parts = [f"{name_of(found.task):<8}", showing.painted(f"{found.state:<8}", _COLOURS.get(found.state, 0))]
    parts.append(f"task {found.id}")
    if found.waiting_for:
        parts.append(f"waiting for {found.waiting_for}")
    if found.retry_count:
        parts.append(f"tried again {found.retry_count}x")
    if found.snooze_count:
        parts.append(f"put off {found.snooze_count}x")
    if found.next_retry_at is not None:
        parts.append(f"next try {showing.moment(found.next_retry_at)}")
    if found.error_code is not None:
        parts.append(f"{found.error_detail} [{found.error_code}]")
    if possible_duplicate:
        parts.append("possible duplicate")
    return "  ".join(parts)


def attempt_record(attempt: Any) -> dict[str, Any]:
    """Return one attempt (a row of `attempts`) for JSON."""
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "error": error_of(attempt.error_code, attempt.error_detail),
        "evidence": attempt.evidence,
    }


def attempt_line(attempt: Any) -> str:
    """Return one attempt in one line: when, how it ended, what shows it."""
    facts = attempt.evidence.items() if isinstance(attempt.evidence, dict) else ()
    shown = [f"{key} {str(value)[:SHOWN_CHARACTERS]}" for key, value in list(facts)[:SHOWN_EVIDENCE]]
    if attempt.error_code is not None:
        shown.insert(0, f"{attempt.error_detail} [{attempt.error_code}]")
    at = showing.moment(attempt.started_at or attempt.finished_at)
    return f"  {attempt.number:>2}  {at}  {attempt.outcome:<9}  {' · '.join(shown)}".rstrip()
