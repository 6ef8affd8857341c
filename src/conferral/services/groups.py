# SPDX-License-Identifier: Apache-2.0
"""Whose counts and priority a message has: a batch's, a bulk change's; or it is a click, and comes first."""

from __future__ import annotations

from collections.abc import Callable

from conferral.store.records import Record

GroupOf = Callable[[Record], str | None]
"""Returns what a credential's messages are bulk of (`bat_…`, `chg_…`); None where somebody waits for them."""


def batch_of(row: Record) -> str | None:
    """Return the batch that a credential is issued with."""
    found: str | None = row.batch_id
    return found
