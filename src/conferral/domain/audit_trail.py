# SPDX-License-Identifier: Apache-2.0
"""The audit trail's seals: each row's digest, and blocks of digests in a chain of SHA-256.

A row is sealed in a canonical form that nothing may change later: without `evidence`, which erasure clears,
and with `fenced` written as `lost`, because a late worker turns one into the other. The chain is made of
digests, so it holds when retention removes rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

NOTHING_BEFORE: Final = bytes(32)
"""The hash before the first block."""
AUDIT_LOG: Final = "audit_log"
"""Stands where an attempt has its run, in the seal of a line of the audit log."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ATTEMPT: Final = (
    "run_id", "number", "owner", "started_at", "finished_at", "outcome", "error_code", "error_detail",
    "next_due_at",
)  # fmt: skip
_LINE: Final = ("id", "organisation_id", "actor", "action", "subject", "request_id", "created_at")


def digest_of_attempt(row: Mapping[str, Any]) -> bytes:
    """Return the digest of an attempt, by which it is sealed."""
    values = [row[name] for name in _ATTEMPT]
    outcome = _ATTEMPT.index("outcome")
    values[outcome] = "lost" if values[outcome] == "fenced" else values[outcome]
    return _digest("attempt", values)


def digest_of_line(row: Mapping[str, Any]) -> bytes:
    """Return the digest of a line of the audit log."""
    return _digest(AUDIT_LOG, [row[name] for name in _LINE])


def block_hash(previous: bytes, digests: Sequence[bytes]) -> bytes:
    """Return the hash of a block: SHA-256(previous ‖ digest ‖ digest …).

    >>> block_hash(NOTHING_BEFORE, []).hex()[:8]
    '66687aad'
    """
    hashed = hashlib.sha256(previous)
    for digest in digests:
        hashed.update(digest)
    return hashed.digest()


def _digest(kind: str, values: Sequence[Any]) -> bytes:
    """Hash a row as a JSON array: kind and values, times as microseconds since 1970, no white space."""
    plain = [(one - _EPOCH) // _MICROSECOND if isinstance(one, datetime) else one for one in values]
    text = json.dumps([kind, *plain], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).digest()
