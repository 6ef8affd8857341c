# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed one by one while credentials are issued."""

from __future__ import annotations

from support.chaos_house import House
from support.chaos_ledger import Ledger


def test_calm(house: House) -> None:
    """Nothing is broken: nothing is lost, doubled or repeated, and no ERROR is logged."""
    ledger = Ledger(house, "calm")
    house.issue(10)
    house.issue_batch(10)
    house.until_final(ledger.accepted, 60)
    account = ledger.finish()
    assert (account.acknowledged, account.repeated, account.recovered) == (20, 0, 0)
