# SPDX-License-Identifier: Apache-2.0
"""Magic addresses: in test mode, `<word>[+tag]@test.invalid` makes a failure happen on purpose.

They let an integrator see every state without breaking anything. Nothing here ever runs for a
live credential, and none of it kills a process.
"""

from __future__ import annotations

import time
from typing import Final

from conferral.reliable.errors import Permanent, Retryable
from conferral.reliable.runs import Run
from conferral.store.records import Record

DOMAIN: Final = "test.invalid"
SLOW_SECONDS: Final = 5.0
CHAIN_TIMEOUTS: Final = 2


def word(row: Record) -> str:
    """Return the magic word of a credential's or delivery's address, or an empty text."""
    address = row.recipient_email if hasattr(row, "recipient_email") else row.recipient
    local, _, domain = (address or "").rpartition("@")
    if row.mode != "test" or domain.lower() != DOMAIN:
        return ""
    return str(local.partition("+")[0].lower())


def before_issuing(work: Record, run: Run) -> None:
    """Fail, wait or stop as the address asks, before anything is rendered."""
    asked = word(work)
    if asked == "bad-data":
        raise Permanent("credential_data_invalid", "the magic address asks for invalid data")
    if asked == "chain-timeout" and run.spent <= CHAIN_TIMEOUTS:
        raise Retryable("anchor_timeout", "the magic address asks for a time-out of the anchor")
    if asked == "poison":
        run.abandon()
    if asked == "slow":
        time.sleep(SLOW_SECONDS)


def after_sending(delivery: Record, run: Run) -> None:
    """Stop between the server's answer and our record, once, as a crash there would."""
    if word(delivery) == "crash-after-email" and run.number == 1:
        run.abandon()
