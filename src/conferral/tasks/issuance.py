# SPDX-License-Identifier: Apache-2.0
"""Issuing: render, sign, log; expand batches; status lists; the search for what got stuck."""

from __future__ import annotations

from typing import Any

from conferral.reliable.runs import Run
from conferral.reliable.task import MAX_BUNDLE, task
from conferral.services import (
    batching,
    changing_batches,
    housekeeping,
    issuing,
    resigning,
    rotating_keys,
    signing_documents,
    status_lists,
    steering_batches,
)
from conferral.tasks.policy import ISSUE, MAINTENANCE, PUBLISH
from conferral.tasks.process import buried_by, runtime


@task("tasks.issuance.issue_credential", policy=ISSUE, on_dead=buried_by(issuing.give_up), bundle=MAX_BUNDLE)
def issue_credential(run: Run, credential_id: str) -> Any:
    """Render and sign one credential and put it into the log's queue."""
    return issuing.perform(runtime(), run, credential_id)


@task("tasks.issuance.expand_batch", policy=ISSUE)
def expand_batch(run: Run, batch_id: str, after: str, change_id: str = "") -> None:
    """Turn the next rows of a batch into credentials."""
    batching.expand(runtime(), run, batch_id, after, change_id)


@task("tasks.issuance.cancel_batch", policy=ISSUE)
def cancel_batch(run: Run, batch_id: str, change_id: str, after: str) -> None:
    """Cancel the next runs of a batch that had not begun when a person cancelled it."""
    steering_batches.cancel_next(runtime(), run, batch_id, change_id, after)


@task("tasks.issuance.retry_batch", policy=ISSUE)
def retry_batch(run: Run, batch_id: str, change_id: str, after: str) -> None:
    """Take up the next rows of a batch that failed or were cancelled."""
    steering_batches.retry_next(runtime(), run, batch_id, change_id, after)


@task("tasks.issuance.open_status_list", policy=MAINTENANCE)
def open_status_list(run: Run, organisation_id: str, mode: str, purpose: str) -> None:
    """Open the status list that follows one which is nearly full."""
    status_lists.open_next(runtime(), run, organisation_id, mode, purpose)


@task("tasks.issuance.publish_status_list", policy=PUBLISH)
def publish_status_list(run: Run, number: str) -> None:
    """Sign a status list as its rows are now."""
    status_lists.publish(runtime(), run, number)


@task("tasks.issuance.change_batch", policy=ISSUE)
def change_batch(run: Run, batch_id: str, *words: str) -> None:
    """Revoke, suspend or reinstate the next credentials of a batch."""
    changing_batches.perform(runtime(), run, batch_id, *words)


@task("tasks.issuance.retry_stuck", policy=MAINTENANCE)
def retry_stuck(run: Run) -> None:
    """Find credentials that are not final and have no live run; there should be none."""
    housekeeping.retry_stuck(runtime(), run)


@task("tasks.issuance.rotate_signing_key", policy=MAINTENANCE)
def rotate_signing_key(run: Run, key_id: str) -> None:
    """Make the key that follows this one, and destroy its private half."""
    rotating_keys.rotate(runtime(), run, key_id)


@task("tasks.issuance.withdraw_signing_key", policy=MAINTENANCE)
def withdraw_signing_key(run: Run, key_id: str, compromised_at: str) -> None:
    """Take a compromised key out of the DID document, and promise what follows."""
    rotating_keys.withdraw(runtime(), run, key_id, compromised_at)


@task("tasks.issuance.resign", policy=MAINTENANCE)
def resign(run: Run, organisation_id: str, mode: str) -> None:
    """Sign again what a withdrawn key of an issuer signed."""
    resigning.resign(runtime(), run, organisation_id, mode)


@task("tasks.issuance.sign_document", policy=ISSUE, on_dead=buried_by(signing_documents.give_up))
def sign_document(run: Run, document_id: str) -> None:
    """Sign a document of other software and put it into the log's queue."""
    signing_documents.perform(runtime(), run, document_id)
