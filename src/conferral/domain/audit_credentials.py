# SPDX-License-Identifier: Apache-2.0
"""A1, A2 and A5 for one credential: its state, its run, its evidence and its leaf must tell one story.

Judged from one row that was read in one moment, so work under way is never taken for a deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from conferral.domain import credential
from conferral.domain.audit import Deviation

_LIVE: Final = ("PENDING", "STARTED", "RETRY", "WAITING")
_GIVEN: Final = (credential.ISSUED, credential.REVOKED, credential.SUSPENDED, credential.SUPERSEDED)
_SIGNED: Final = (credential.ISSUING, *_GIVEN)
_EVIDENCE: Final = ("base_sha384", "base_length", "pdf_sha256", "vc_sha256", "verification_method")


def judge_liveness(row: Any) -> Iterator[Deviation]:
    """A1: a requested credential that is not final has a run that will make it so.

    Args:
        row: a credential with `run_state`, the state of its run.
    """
    if row.state not in credential.UNFINISHED:
        return
    if row.run_id is None:
        # Without a batch, nobody asked to issue it yet.
        if row.batch_id is not None:
            yield _found("A1", row, f"is {row.state} in batch {row.batch_id}, and nothing will issue it")
    elif row.run_state is None:
        yield _found("A1", row, f"is {row.state}, and its run {row.run_id} does not exist")
    elif row.run_state not in _LIVE:
        yield _found("A1", row, f"is {row.state}, and its run {row.run_id} ended as {row.run_state}")


def judge_evidence(row: Any) -> Iterator[Deviation]:
    """A2: what a state claims is recorded, and its run ended the same way."""
    if row.state in _SIGNED:
        missing = [name for name in _EVIDENCE if getattr(row, name) is None]
        if missing:
            yield _found("A2", row, f"is {row.state} without {', '.join(missing)}")
    if row.state in _GIVEN and row.issued_at is None:
        yield _found("A2", row, f"is {row.state} without the time it was issued")
    if row.state in (credential.QUEUED, credential.ISSUING) and row.issued_at is not None:
        yield _found("A2", row, f"is {row.state} and was issued")
    if row.state == credential.FAILED and row.failure_code is None:
        yield _found("A2", row, "is failed without a reason")
    ended = _expected_end(row)
    if ended and row.run_state not in ended:
        yield _found("A2", row, f"is {row.state}, and its run {row.run_id} is {row.run_state or 'missing'}")


def _expected_end(row: Any) -> tuple[str, ...]:
    if row.run_id is None:
        return ()
    if row.state in _GIVEN:
        # Signing again (a withdrawn key) may be under way.
        return ("SUCCESS",) if row.revision == 1 else ("SUCCESS", *_LIVE)
    if row.state == credential.FAILED:
        return ("FAILURE", "REVOKED", *_LIVE)  # live: replayed, and not executed yet
    return ()


def judge_leaf(row: Any) -> Iterator[Deviation]:
    """A5: what was signed is in its log, once, as exactly these bytes.

    Args:
        row: a credential with its leaf's `leaf_log`, `entry` and `leaf_index`.
    """
    if row.state == credential.QUEUED and row.entry is not None:
        yield _found("A5", row, "has a leaf and was not signed")
    if row.state not in _SIGNED or row.vc_sha256 is None:
        return
    if row.entry is None:
        yield _found("A5", row, f"is {row.state} and has no leaf")
        return
    if row.entry.hex() != row.vc_sha256:
        yield _found("A5", row, f"leaf {_place(row)} is not the credential's")
    if row.leaf_log != row.mode:
        yield _found("A5", row, f"leaf {_place(row)} is in log {row.leaf_log}, not {row.mode}")
    if row.state in _GIVEN and row.leaf_index is None:
        yield _found("A5", row, f"is {row.state}, and its leaf has no place in the log")


def _place(row: Any) -> str:
    return "without a place" if row.leaf_index is None else str(row.leaf_index)


def _found(check: str, row: Any, text: str) -> Deviation:
    return Deviation(check, row.id, text, key=row.id)
