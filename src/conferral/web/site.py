# SPDX-License-Identifier: Apache-2.0
"""What a request may use: the runtime of this process, its settings, and whose request it is.

Built once per process by `app`; a handler asks here and never builds anything itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flask import current_app, g

from conferral.services.runtime import Caller, Runtime
from conferral.settings import Settings
from conferral.web.limits import Limiter
from conferral.web.previews import Previews
from conferral.web.waiting import Patience

EXTENSION: Final = "conferral"


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that lives as long as the process."""

    settings: Settings
    runtime: Runtime
    limiter: Limiter
    patience: Patience
    previews: Previews


def site() -> Site:
    """Return the site of the application that handles this request."""
    found: Site = current_app.extensions[EXTENSION]
    return found


def runtime() -> Runtime:
    """Return the runtime of this process."""
    return site().runtime


def caller() -> Caller:
    """Return on whose behalf the API request is made; the gate has put it there."""
    found: Caller = g.caller
    return found


def request_id() -> str:
    """Return this request's id, as it stands in the answer and in the log."""
    found: str = g.request_id
    return found
