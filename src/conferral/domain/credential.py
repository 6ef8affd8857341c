# SPDX-License-Identifier: Apache-2.0
"""A credential's states, and the only ways from one to another."""

from __future__ import annotations

from typing import Final, Literal

Mode = Literal["live", "test"]

QUEUED: Final = "queued"
ISSUING: Final = "issuing"
ISSUED: Final = "issued"
FAILED: Final = "failed"
REVOKED: Final = "revoked"
SUSPENDED: Final = "suspended"
SUPERSEDED: Final = "superseded"
ERASED: Final = "erased"

STATES: Final = (QUEUED, ISSUING, ISSUED, FAILED, REVOKED, SUSPENDED, SUPERSEDED, ERASED)
UNFINISHED: Final = (QUEUED, ISSUING)

TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    QUEUED: frozenset({ISSUING, FAILED}),
    ISSUING: frozenset({ISSUED, FAILED}),
    ISSUED: frozenset({REVOKED, SUSPENDED, SUPERSEDED, ERASED}),
    SUSPENDED: frozenset({ISSUED, REVOKED, SUPERSEDED, ERASED}),
    REVOKED: frozenset({ERASED}),
    SUPERSEDED: frozenset({ERASED}),
    FAILED: frozenset({QUEUED, ERASED}),  # queued again only by a person's retry
    ERASED: frozenset(),
}


def sources_of(target: str) -> tuple[str, ...]:
    """Return the states from which `target` may be reached, for a compare-and-set.

    >>> sources_of("issued")
    ('issuing', 'suspended')
    """
    return tuple(state for state in STATES if target in TRANSITIONS[state])
