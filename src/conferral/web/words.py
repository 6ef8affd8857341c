# SPDX-License-Identifier: Apache-2.0
"""States, tasks and checks in the words that people read; the wire keeps its own.

A run that is REVOKED was cancelled; a credential that is `revoked` was withdrawn. The two are
never mixed here, because readers would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from conferral.domain.problems import PROBLEMS
from conferral.domain.verification import Check, Verdict


@dataclass(frozen=True, slots=True)
class Word:
    """How something is called, which icon stands beside it, and how urgent it looks.

    Attributes:
        text: never left out: colour and icon alone tell nothing.
        icon: a name in `icons.html`.
        tone: good, busy, warn, bad or calm; a class of the style sheet.
    """

    text: str
    icon: str
    tone: str


CREDENTIAL: Final = {
    "queued": Word("Queued", "clock", "calm"),
    "issuing": Word("Being issued", "spinner", "busy"),
    "issued": Word("Issued", "check", "good"),
    "failed": Word("Failed", "alert", "bad"),
    "revoked": Word("Revoked", "ban", "bad"),
    "suspended": Word("Suspended", "pause", "warn"),
    "superseded": Word("Replaced", "swap", "warn"),
    "erased": Word("Erased", "ban", "calm"),
}
RUN: Final = {
    "PENDING": Word("Queued", "clock", "calm"),
    "STARTED": Word("Working", "spinner", "busy"),
    "RETRY": Word("Trying again", "retry", "warn"),
    "SUCCESS": Word("Done", "check", "good"),
    "FAILURE": Word("Needs attention", "alert", "bad"),
    "REVOKED": Word("Cancelled", "ban", "calm"),
}
WAITING: Final = Word("Waiting for the log", "clock", "busy")
OUTCOME: Final = {
    "success": Word("Done", "check", "good"),
    "retry": Word("To be tried again", "retry", "warn"),
    "snoozed": Word("Put off", "clock", "calm"),
    "failure": Word("Failed", "alert", "bad"),
    "ambiguous": Word("Answer lost", "question", "warn"),
    "lost": Word("Worker lost", "alert", "warn"),
    "fenced": Word("Too late, undone", "ban", "warn"),
}
BATCH: Final = {
    "validating": Word("Being checked", "spinner", "busy"),
    "ready": Word("Ready", "clock", "calm"),
    "running": Word("Running", "spinner", "busy"),
    "paused": Word("Paused", "pause", "warn"),
    "completed": Word("Completed", "check", "good"),
    "cancelled": Word("Cancelled", "ban", "calm"),
}
ENDPOINT: Final = {
    "enabled": Word("Enabled", "check", "good"),
    "paused": Word("Paused after failures", "pause", "warn"),
    "disabled": Word("Disabled", "ban", "calm"),
}
TASK: Final = {
    "tasks.issuance.issue_credential": "Issue",
    "tasks.issuance.expand_batch": "Read the batch",
    "tasks.issuance.publish_status_list": "Sign a status list",
    "tasks.issuance.open_status_list": "Open a status list",
    "tasks.issuance.change_batch": "Change the standing of a batch",
    "tasks.issuance.cancel_batch": "Cancel a batch",
    "tasks.issuance.retry_batch": "Retry a batch",
    "tasks.issuance.sign_document": "Sign a document",
    "tasks.issuance.rotate_signing_key": "Change the signing key",
    "tasks.issuance.withdraw_signing_key": "Withdraw a signing key",
    "tasks.issuance.resign": "Sign again under the next key",
    "tasks.issuance.retry_stuck": "Look for stuck credentials",
    "tasks.notifications.send_issuance_email": "E-mail",
    "tasks.notifications.send_status_email": "E-mail about its standing",
    "tasks.notifications.send_report_email": "Report by e-mail",
    "tasks.webhooks.post_event": "Webhook",
    "tasks.anchoring.sequence": "Extend the log",
    "tasks.reports.generate_daily_issuance_report": "Daily report",
    "tasks.cleanup.purge_expired_sessions": "Clean up",
    "tasks.cleanup.seal_audit_trail": "Seal the audit trail",
}
VERB: Final = {
    "revoke": Word("Revoke", "ban", "bad"),
    "suspend": Word("Suspend", "pause", "warn"),
    "reinstate": Word("Reinstate", "check", "good"),
    "supersede": Word("Replace", "swap", "warn"),
}
CONSEQUENCE: Final = {
    "revoke": "It is withdrawn for good: nobody can take that back. A corrected one can be issued instead.",
    "suspend": "It is shown as suspended until it is reinstated or revoked.",
    "reinstate": "It is in force again: page, PDF and every link that was shared are valid as before.",
}
REASON: Final = {
    "unspecified": "No reason in particular",
    "issued_in_error": "Issued in error",
    "content_wrong": "Its content is wrong",
    "requirements_not_met": "The requirements were not met",
    "misconduct": "Misconduct",
    "no_longer_entitled": "No longer entitled",
    "recipient_request": "The recipient asked for it",
    "under_review": "Under review",
    "replaced": "Replaced by a corrected one",
}
FIGURE: Final = {
    "issued": "Credentials issued",
    "waiting": "Requested, not issued yet",
    "failed": "Credentials failed",
    "emails_sent": "E-mails sent",
    "emails_failed": "E-mails failed",
    "webhooks_delivered": "Webhooks delivered",
    "webhooks_failed": "Webhooks failed",
}
VERDICT: Final = {
    Verdict.VALID: Word("Valid", "check", "good"),
    Verdict.REVOKED: Word("Revoked", "ban", "bad"),
    Verdict.EXPIRED: Word("Expired", "clock", "warn"),
    Verdict.REPLACED: Word("Replaced", "swap", "warn"),
    Verdict.SUSPENDED: Word("Suspended", "pause", "warn"),
    Verdict.NOT_YET_VALID: Word("Not yet valid", "clock", "warn"),
    Verdict.TAMPERED: Word("Tampered with", "alert", "bad"),
    Verdict.UNKNOWN: Word("Unknown", "question", "calm"),
    Verdict.CANNOT_CHECK: Word("Cannot be checked", "alert", "calm"),
}
_CHECK: Final = {
    "signature": (
        "The signature is genuine",
        "The signature does not match the content",
        "The signature could not be checked",
    ),
    "pdf_digest": ("The PDF is the one issued", "The PDF is not the one issued", "The PDF was not compared"),
    "issuer": (
        "It comes from the issuer it names",
        "The issuer does not answer for this signature",
        "The issuer could not be confirmed",
    ),
    "status": ("It has not been withdrawn", "It is not in force", "Its standing is not known"),
    "validity": ("It is within its period", "It is outside of its period", "Its period is not known"),
    "anchor": (
        "It is entered in the public log",
        "It is not in the log it names",
        "It waits for its place in the log",
    ),
}
_FOUND: Final = {
    True: Word("Yes", "check", "good"),
    False: Word("No", "cross", "bad"),
    None: Word("Not known", "question", "calm"),
}


def check(found: Check) -> Word:
    """Return a check of the verification page as a sentence."""
    texts = _CHECK.get(found.id, (found.id, found.id, found.id))
    sign = _FOUND[found.ok]
    return Word(texts[0 if found.ok else 1 if found.ok is False else 2], sign.icon, sign.tone)


def run(state: str, waiting_for: str | None = None) -> Word:
    """Return the word for a run's state."""
    return WAITING if waiting_for else RUN[state]


def endpoint(state: str, *, is_paused: bool) -> Word:
    """Return the word for an endpoint's state."""
    return ENDPOINT["paused" if is_paused and state == "enabled" else state]


def task(name: str) -> str:
    """Return what a task does, in a word or two."""
    return TASK.get(name, name.rpartition(".")[2].replace("_", " ").capitalize())


def code(value: str) -> str:
    """Return what an error code means."""
    return PROBLEMS[value].title if value in PROBLEMS else value


def cure(value: str) -> str:
    """Return what to do about an error code."""
    return PROBLEMS[value].cure if value in PROBLEMS else ""
