# SPDX-License-Identifier: Apache-2.0
"""How a credential ends or pauses: four verbs, from which state each may be said, and the reason codes.

A reason is a code and never a sentence that somebody typed: it travels to receivers, and it stays
when the person is erased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from conferral.domain.credential import ISSUED, REVOKED, SUPERSEDED, SUSPENDED

REVOCATION: Final = "revocation"
SUSPENSION: Final = "suspension"
PURPOSES: Final = (REVOCATION, SUSPENSION)
"""What a set bit of a status list means; chosen by the template, and never changed afterwards."""

UNSPECIFIED: Final = "unspecified"
REASONS: Final = (
    UNSPECIFIED,
    "issued_in_error",
    "content_wrong",
    "requirements_not_met",
    "misconduct",
    "no_longer_entitled",
    "recipient_request",
    "under_review",
)
REPLACED: Final = "replaced"
"""The reason of every superseded credential; nobody chooses it."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One way to change the standing of an issued credential.

    Attributes:
        name: what API and command line call it.
        sources: the states it may be said in.
        target: the state it leads to.
        event_type: what endpoints are told.
        email_kind: what the recipient is told.
        needs: the purpose that the credential's status list must have; None for any.
    """

    name: str
    sources: tuple[str, ...]
    target: str
    event_type: str
    email_kind: str
    needs: str | None = None


REVOKE: Final = Verb("revoke", (ISSUED, SUSPENDED), REVOKED, "credential.revoked", "revoked")
SUSPEND: Final = Verb("suspend", (ISSUED,), SUSPENDED, "credential.suspended", "suspended", SUSPENSION)
REINSTATE: Final = Verb("reinstate", (SUSPENDED,), ISSUED, "credential.reinstated", "reinstated", SUSPENSION)
SUPERSEDE: Final = Verb("supersede", (ISSUED, SUSPENDED), SUPERSEDED, "credential.superseded", "superseded")
VERBS: Final = {verb.name: verb for verb in (REVOKE, SUSPEND, REINSTATE)}
"""What is said to a credential, or to many; superseding needs another credential."""


def possible(state: str, purpose: str) -> tuple[Verb, ...]:
    """Return the verbs that can be said to a credential, in the order they are offered.

    >>> [verb.name for verb in possible("suspended", "suspension")]
    ['reinstate', 'supersede', 'revoke']
    """
    offered = (REINSTATE, SUSPEND, SUPERSEDE, REVOKE)
    return tuple(verb for verb in offered if refusal(verb, state, purpose) is None)


def refusal(verb: Verb, state: str, purpose: str) -> str | None:
    """Return why a verb cannot be said to a credential, for whoever tried; None if it can.

    >>> refusal(REVOKE, "issued", "revocation")
    >>> refusal(SUSPEND, "issued", "revocation")
    'its template is not suspendable: it can be revoked or superseded'
    >>> refusal(REINSTATE, "revoked", "suspension")
    'it is revoked; reinstate is said to suspended ones'
    """
    if verb.needs is not None and purpose != verb.needs:
        return "its template is not suspendable: it can be revoked or superseded"
    if state not in verb.sources:
        return f"it is {state}; {verb.name} is said to {' and '.join(verb.sources)} ones"
    return None
