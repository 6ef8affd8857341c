# SPDX-License-Identifier: Apache-2.0
"""What an effect may raise, and what the reliable layer does with it.

The class decides, never the call site::

    RunError                what / which id / what to do next; a stable `code`
    ├── Retryable           certainly not done; try again after a jittered delay
    ├── Ambiguous           perhaps done; try again with the same identity, and say so
    ├── Snooze              not ready; try again later without spending an attempt
    └── Permanent           will never work; park the run as a dead letter
    LeaseLost               somebody else holds the run now: this worker records nothing
    RoutingError            a task, schedule entry or queue that nothing would execute

Details are stored and shown to people. They must never hold a secret or a person's address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class RunError(Exception):
    """The run did not succeed."""

    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        code: str | None = None,
        detail: str = "",
        *,
        retry_after_seconds: float | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.detail = detail or (type(self).__doc__ or "").splitlines()[0]
        self.retry_after_seconds = retry_after_seconds
        self.evidence = dict(evidence or {})
        super().__init__(f"{self.code}: {self.detail}")


class Retryable(RunError):
    """The effect certainly did not happen; the run is tried again later."""


class Ambiguous(RunError):
    """The peer's answer was lost; the effect may have happened."""


class Snooze(RunError):
    """The run cannot start yet; it is looked at again without spending an attempt."""

    default_code = "not_ready"

    def __init__(
        self,
        code: str | None = None,
        detail: str = "",
        *,
        seconds: float,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code, detail, evidence=evidence)
        self.seconds = seconds


class Permanent(RunError):
    """The effect will never succeed as it stands; a person has to look."""


class LeaseLost(Exception):
    """Another worker holds this run now; nothing was recorded."""


class RoutingError(Exception):
    """A task, a schedule entry or a queue is not wired to anything that executes it."""
