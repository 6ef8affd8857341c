# SPDX-License-Identifier: Apache-2.0
"""Every error a client can meet: code, HTTP status, whether to retry, what to do (RFC 9457).

One table feeds the API, CSV messages, the console, the command line and the documentation.
A detail says what, which id and what to do next; never a secret, never a person's address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of error: `status` is 0 for codes that only runs have."""

    code: str
    status: int
    title: str
    cure: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong value: where (JSON pointer), which code, what is wrong with it."""

    pointer: str
    code: str
    detail: str


class Problem(Exception):
    """The request cannot be done; the code says why."""

    def __init__(self, code: str, detail: str, *, errors: Sequence[FieldError] = ()) -> None:
        self.type = PROBLEMS[code]
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        super().__init__(f"{code}: {detail}")


_HTTP: Final = (
    ProblemType("request_invalid", 400, "The request is malformed", "See what the detail says."),
    ProblemType("json_invalid", 400, "The body is not JSON", "Send one JSON object in UTF-8."),
    ProblemType("cursor_invalid", 400, "The cursor is not one of ours", "Start again without a cursor."),
    ProblemType(
        "idempotency_key_required", 400, "Idempotency-Key is missing", "Send a fresh UUID as Idempotency-Key."
    ),
    ProblemType(
        "idempotency_key_invalid", 400, "Idempotency-Key is malformed", "Send at most 255 visible characters."
    ),
    ProblemType("key_missing", 401, "No API key", "Send `Authorization: Bearer conferral_…`."),
    ProblemType(
        "key_invalid", 401, "The API key is not valid", "Check it for typing errors, or make a new one."
    ),
    ProblemType("key_expired", 401, "The API key has expired", "Make a new key."),
    ProblemType("session_expired", 401, "You are not signed in", "Sign in again."),
    ProblemType("scope_missing", 403, "The key lacks a scope", "Use a key with the scope that is named."),
    ProblemType("csrf_failed", 403, "The form is not ours", "Load the page again and repeat."),
    ProblemType("organisation_suspended", 403, "The organisation is suspended", "Ask the operator."),
    ProblemType(
        "not_found", 404, "There is no such thing", "Check the id and the key's organisation and mode."
    ),
    ProblemType("method_not_allowed", 405, "This method is not offered here", "See the API reference."),
    ProblemType("state_conflict", 409, "Its state does not allow that", "Read its state first."),
    ProblemType(
        "idempotency_in_progress",
        409,
        "The first request is still running",
        "Repeat after Retry-After.",
        retryable=True,
    ),
    ProblemType(
        "external_id_conflict", 409, "This external_id has other content", "Use another external_id, or none."
    ),
    ProblemType("supersede_required", 409, "An issued credential is not changed", "Supersede it instead."),
    ProblemType(
        "did_key_fixed",
        409,
        "A did:key issuer cannot change its key",
        "Set CONFERRAL_PUBLIC_URL to an https host name; a new organisation then has a did:web.",
    ),
    ProblemType("task_purged", 410, "The run is no longer kept", "Maintenance runs are kept 30 days."),
    ProblemType("erased", 410, "Removed at the person's request", "Nothing can be done."),
    ProblemType("body_too_large", 413, "The body is too large", "Send less."),
    ProblemType("too_many_rows", 413, "Too many rows", "Split the file."),
    ProblemType("media_type_unsupported", 415, "Unsupported content type", "Send application/json."),
    ProblemType("validation_failed", 422, "Some values are not valid", "Mend what `errors` names."),
    ProblemType(
        "idempotency_key_reused", 422, "The key was used for another request", "Use a fresh Idempotency-Key."
    ),
    ProblemType("csv_unreadable", 422, "The file cannot be read as CSV", "Save it as CSV in UTF-8."),
    ProblemType("csv_column_missing", 422, "A column is missing", "Name it with --map field=column."),
    ProblemType("quota_exceeded", 429, "Too many requests", "Wait for Retry-After.", retryable=True),
    ProblemType("temporary_reduced_capacity", 429, "Too busy", "Wait for Retry-After.", retryable=True),
    ProblemType(
        "internal", 500, "Something failed here", "Repeat; quote the request id if it stays.", retryable=True
    ),
    ProblemType(
        "database_unavailable",
        503,
        "The database does not answer",
        "Repeat after Retry-After.",
        retryable=True,
    ),
    ProblemType("read_only", 503, "The data directory is read-only", "Ask the operator.", retryable=True),
    ProblemType("storage_full", 507, "The disk is full", "Ask the operator for room.", retryable=True),
)
_FIELDS: Final = (
    ProblemType("field_required", 422, "A value is missing", "Give it."),
    ProblemType("field_unknown", 422, "There is no such field", "Remove it, or correct its name."),
    ProblemType("field_too_long", 422, "The value is too long", "Shorten it."),
    ProblemType("field_invalid", 422, "The value has the wrong form", "See what the detail expects."),
    ProblemType("email_invalid", 422, "Not an e-mail address", "Correct it."),
    ProblemType("date_invalid", 422, "Not a date", "Write YYYY-MM-DD."),
    ProblemType("date_order", 422, "The dates are in the wrong order", "expires_on comes after issued_on."),
    ProblemType(
        "text_unprintable", 422, "Characters that no font can print", "Add a font, or change the text."
    ),
    ProblemType("url_forbidden", 422, "This address may not be called", "Use a public https address."),
    ProblemType("template_unknown", 422, "There is no such template", "List the templates and use an id."),
    ProblemType("template_invalid", 422, "The template cannot be rendered", "Mend the template."),
)
_RUNS: Final = (
    ProblemType("render_timeout", 0, "Rendering took too long", "It is tried again.", retryable=True),
    ProblemType("render_crashed", 0, "The renderer died", "It is tried again.", retryable=True),
    ProblemType(
        "signing_key_unavailable",
        0,
        "The signing key cannot be opened",
        "Check the master key.",
        retryable=True,
    ),
    ProblemType(
        "storage_unavailable", 0, "The file store does not answer", "It is tried again.", retryable=True
    ),
    ProblemType("anchor_timeout", 0, "The anchor did not answer", "It is tried again.", retryable=True),
    ProblemType("worker_lost", 0, "The process died or froze", "It is tried again.", retryable=True),
    ProblemType(
        "smtp_unreachable", 0, "The mail server cannot be reached", "It is tried again.", retryable=True
    ),
    ProblemType(
        "smtp_throttled", 0, "The mail server asks to slow down", "It is tried again.", retryable=True
    ),
    ProblemType("smtp_temporary", 0, "The mail server refused for now", "It is tried again.", retryable=True),
    ProblemType(
        "endpoint_unreachable", 0, "The endpoint cannot be reached", "It is tried again.", retryable=True
    ),
    ProblemType("endpoint_timeout", 0, "The endpoint took too long", "It is tried again.", retryable=True),
    ProblemType(
        "endpoint_error",
        0,
        "The endpoint refused the event",
        "Mend the endpoint; it is tried again.",
        retryable=True,
    ),
    ProblemType(
        "endpoint_throttled", 0, "The endpoint asks to slow down", "It is tried again.", retryable=True
    ),
    ProblemType(
        "endpoint_failing", 0, "The endpoint keeps failing; paused", "Mend the endpoint.", retryable=True
    ),
    ProblemType(
        "endpoint_busy", 0, "The endpoint is busy with others", "It goes on by itself.", retryable=True
    ),
    ProblemType("given_back", 0, "Its bundle ended before it began", "It goes on by itself.", retryable=True),
    ProblemType("not_ready", 0, "It cannot begin yet", "It goes on by itself.", retryable=True),
    ProblemType(
        "smtp_auth_failed",
        0,
        "The mail server refuses our login",
        "Correct the SMTP settings.",
        retryable=True,
    ),
    ProblemType(
        "smtp_sender_refused",
        0,
        "The mail server refuses our sender",
        "Correct CONFERRAL_MAIL_FROM.",
        retryable=True,
    ),
    ProblemType(
        "channel_closed", 0, "Mail is paused while the server fails", "It goes on by itself.", retryable=True
    ),
    ProblemType("credential_data_invalid", 0, "The credential's data is invalid", "Correct and issue again."),
    ProblemType("signing_key_revoked", 0, "The signing key was revoked", "Rotate the key."),
    ProblemType("mailbox_unknown", 0, "The mailbox does not exist", "Correct the address and send again."),
    ProblemType("mail_refused", 0, "The mail server refused the message", "Read the reply in the timeline."),
    ProblemType("recipient_suppressed", 0, "The recipient wants no mail", "Hand the link over otherwise."),
    ProblemType("email_needs_smtputf8", 0, "The server cannot take this address", "Use another address."),
    ProblemType(
        "email_outcome_unknown", 0, "The mail server's answer was lost", "Ask the recipient, then decide."
    ),
    ProblemType("endpoint_gone", 0, "The endpoint said it is gone", "Add a new endpoint."),
    ProblemType("endpoint_disabled", 0, "The endpoint is disabled", "Enable it, then replay."),
    ProblemType(
        "endpoint_address_forbidden",
        0,
        "The endpoint's address is not allowed",
        "See CONFERRAL_WEBHOOK_ALLOW_CIDRS.",
    ),
    ProblemType("log_halted", 0, "The log is halted", "Run conferral doctor."),
    ProblemType("poison", 0, "Every worker that ran it died", "Look at the logs before you replay it."),
    ProblemType("cancelled", 0, "A person cancelled it", "Replay it if that was a mistake."),
)

# For the reference: what a request, a value, a run may have.
GROUPS: Final = {"answers": _HTTP, "values": _FIELDS, "runs": _RUNS}
PROBLEMS: Final = {problem.code: problem for problem in (*_HTTP, *_FIELDS, *_RUNS)}
