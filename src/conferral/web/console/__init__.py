# SPDX-License-Identifier: Apache-2.0
"""The console: signed-in pages of plain links and forms; scripts only make them nicer."""

from __future__ import annotations

from typing import Final

from conferral.web.console import (
    batches,
    credentials,
    door,
    mailbox,
    operations,
    overview,
    reports,
    sign_in,
    standing,
)

PAGES: Final = door.pages
"""The blueprint to which all of these rooms have added their pages."""

__all__ = [
    "PAGES",
    "batches",
    "credentials",
    "door",
    "mailbox",
    "operations",
    "overview",
    "reports",
    "sign_in",
    "standing",
]
