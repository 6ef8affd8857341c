# SPDX-License-Identifier: Apache-2.0
"""The audit: is everything as it was promised? Reads rows and files beside live work; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from conferral.domain.audit import Remark
from conferral.services.auditing import (
    chains,
    credentials,
    deliveries,
    files,
    runs,
    schedules,
    status_lists,
    tenants,
    trail,
    tree,
)
from conferral.services.auditing.looking import Audit, Finding, Tell

_GROUPS = (
    (("A1", "A2", "A5"), credentials.examine),
    (("A3", "A4", "A14"), files.examine),
    (("A5",), tree.examine),
    (("A6",), chains.examine),
    (("A2", "A7"), deliveries.examine),
    (("A8", "A9"), runs.examine),
    (("A10",), schedules.examine),
    (("A11",), tenants.examine),
    (("A12",), trail.examine),
    (("A4", "A13"), status_lists.examine),
)


def findings(audit: Audit) -> Iterator[Finding]:
    """Yield deviations and remarks as they are found; `audit.tally` counts."""
    for checks, examine in _GROUPS:
        if not audit.wants(*checks):
            continue
        for found in examine(audit):
            if isinstance(found, Remark):
                yield found
            elif audit.wants(found.check):
                audit.tally.deviations += 1
                yield found


__all__ = ["Audit", "Finding", "Tell", "findings"]
