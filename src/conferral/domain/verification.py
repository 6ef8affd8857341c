# SPDX-License-Identifier: Apache-2.0
"""Evidence in, ordered checks and one verdict out; page, API, CLI and VC-API all judge here.

Who gathers the evidence (rows, files, a resolved DID) says what it found as a `Finding`: true, false, or null
for "cannot be told". This room must never look anything up, and never call a credential valid because
something was silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from conferral.domain.vc import timestamp


class Verdict(StrEnum):
    """What we say about a credential; the words on the wire."""

    VALID = "VALID"
    TAMPERED = "TAMPERED"
    UNKNOWN = "UNKNOWN"
    CANNOT_CHECK = "CANNOT_CHECK"
    REVOKED = "REVOKED"
    REPLACED = "REPLACED"
    SUSPENDED = "SUSPENDED"
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"


EXIT_CODES: Mapping[Verdict, int] = {
    Verdict.VALID: 0,
    Verdict.REVOKED: 10,
    Verdict.EXPIRED: 11,
    Verdict.TAMPERED: 12,
    Verdict.UNKNOWN: 13,
    Verdict.CANNOT_CHECK: 14,
    Verdict.REPLACED: 15,
    Verdict.SUSPENDED: 16,
    Verdict.NOT_YET_VALID: 16,
}
"""How `conferral verify` ends."""

SENTENCES: Mapping[Verdict, str] = {
    Verdict.VALID: "This certificate is genuine and in force.",
    Verdict.REVOKED: "Genuine, but withdrawn by the issuer.",
    Verdict.EXPIRED: "Genuine, but it has ended.",
    Verdict.REPLACED: "There is a newer version.",
    Verdict.SUSPENDED: "Genuine, but paused by the issuer.",
    Verdict.NOT_YET_VALID: "Genuine, but not valid yet.",
    Verdict.TAMPERED: "This file is not what was issued: its name or content differs.",
    Verdict.UNKNOWN: "We have no record of it. We cannot say it is false.",
    Verdict.CANNOT_CHECK: "The issuer's key or status list could not be fetched.",
}
"""One sentence for each verdict, when no date is known."""

DATED_SENTENCES: Mapping[Verdict, str] = {
    Verdict.REVOKED: "Genuine, but withdrawn by the issuer on {date}.",
    Verdict.EXPIRED: "Genuine, but it ended on {date}.",
    Verdict.NOT_YET_VALID: "Genuine, valid from {date}.",
}
"""The same with the date that decided; pages format `{date}` in the reader's language."""

RESAVED_PDF = "The credential inside is genuine, this file is not the one issued."
"""Said beside TAMPERED when the signature holds and only the PDF around it differs."""
ERASED = "Removed at the person's request."
"""The page of an erased credential (410)."""


@dataclass(frozen=True)
class Finding:
    """What one question was answered: true, false or null, and a short word about it."""

    ok: bool | None
    detail: str = ""


def holds(detail: str = "") -> Finding:
    """Find that it is so."""
    return Finding(ok=True, detail=detail)


def fails(detail: str = "") -> Finding:
    """Find that it is not so."""
    return Finding(ok=False, detail=detail)


def untold(detail: str = "") -> Finding:
    """Find that it cannot be told."""
    return Finding(ok=None, detail=detail)


@dataclass(frozen=True)
class Check:
    """A finding under its id: signature, pdf_digest, issuer, status, validity, anchor."""

    id: str
    ok: bool | None
    detail: str

    def as_wire(self) -> dict[str, Any]:
        """Return the check as API, page and command line show it."""
        return {"id": self.id, "ok": self.ok, "detail": self.detail}


class Standing(StrEnum):
    """What row or status list say about a credential."""

    IN_FORCE = "in_force"
    REVOKED = "revoked"
    WITHDRAWN = "withdrawn"
    """Erased: an uploaded copy is withdrawn, and no reason is given."""
    REPLACED = "replaced"
    SUSPENDED = "suspended"
    UNTOLD = "untold"
    """Neither a row nor a usable list."""


@dataclass(frozen=True)
class StatusFinding:
    """The standing, a short word about it, and since when (if known)."""

    standing: Standing
    detail: str = ""
    since: datetime | None = None


UNTOLD = StatusFinding(Standing.UNTOLD, "no status is known")
NOT_LOGGED = untold("no log evidence was given")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything a verdict rests on.

    Attributes:
        now: when is judged (aware UTC); `--as-of` passes another day.
        signature: under a key from our database or a resolved DID; null when no key could be had.
        is_known_issuer: the document's id or issuer is one that this verifier knows.
        issuer: the method is in the issuer's assertionMethod, the DID is `issuer.id`, not compromised.
        status: from the row (ours) or the list (offline, foreign).
        is_recorded: a row or a log entry of exactly this credential exists; null where nobody can look.
        valid_from: of the signed document; null if it names none.
        valid_until: of the signed document; null if it never ends.
        anchor: the log proof.
        pdf_digest: null when no PDF was given.
    """

    now: datetime
    signature: Finding
    is_known_issuer: bool
    issuer: Finding
    status: StatusFinding = UNTOLD
    is_recorded: bool | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    anchor: Finding = NOT_LOGGED
    pdf_digest: Finding | None = None


@dataclass(frozen=True)
class Judgement:
    """The verdict, the checks in their order, when it was judged, and the date that decided."""

    verdict: Verdict
    checks: tuple[Check, ...]
    checked_at: datetime
    since: datetime | None = None
    is_unlogged_signature: bool = False
    """A true signature of ours that we have no record of: a stolen key looks like this. Alert."""

    @property
    def exit_code(self) -> int:
        """How the command line ends."""
        return EXIT_CODES[self.verdict]

    @property
    def sentence(self) -> str:
        """The verdict in one plain English sentence."""
        dated = DATED_SENTENCES.get(self.verdict)
        if self.since is not None and dated is not None:
            return dated.format(date=f"{self.since.day} {self.since:%b %Y}")
        if self.verdict is Verdict.TAMPERED and self.checks[0].ok:
            return RESAVED_PDF
        return SENTENCES[self.verdict]

    def as_wire(self) -> dict[str, Any]:
        """Return `{verdict, checks, checked_at}`."""
        return {
            "verdict": self.verdict.value,
            "checks": [check.as_wire() for check in self.checks],
            "checked_at": timestamp(self.checked_at),
        }


def no_credential(now: datetime) -> Judgement:
    """Judge a file in which no credential was found."""
    return Judgement(Verdict.UNKNOWN, (), now)


def judge(evidence: Evidence) -> Judgement:
    """Decide by the first rule that applies, and list the checks a reader may see.

    A signature that is false or untold shows nothing else: what the document says besides is nobody's word.
    """
    checks = _checks(evidence)
    verdict, since = next(_applicable(evidence))
    if evidence.signature.ok is not True:
        checks = checks[:1]
    is_unlogged = evidence.signature.ok is True and evidence.is_known_issuer and evidence.is_recorded is False
    return Judgement(verdict, checks, evidence.now, since, is_unlogged)


def _applicable(evidence: Evidence) -> Iterator[tuple[Verdict, datetime | None]]:
    """Yield every verdict that applies, the deciding one first; VALID only when nothing speaks against it."""
    if not evidence.is_known_issuer:
        yield Verdict.UNKNOWN, None
    if evidence.signature.ok is not True:
        yield (Verdict.CANNOT_CHECK if evidence.signature.ok is None else Verdict.TAMPERED), None
    if evidence.is_recorded is False:
        yield Verdict.UNKNOWN, None
    if evidence.pdf_digest is not None and evidence.pdf_digest.ok is False:
        yield Verdict.TAMPERED, None
    if evidence.status.standing in _VERDICT_OF_STANDING:
        yield _VERDICT_OF_STANDING[evidence.status.standing], evidence.status.since
    if evidence.valid_until is not None and evidence.now > evidence.valid_until:
        yield Verdict.EXPIRED, evidence.valid_until
    if evidence.valid_from is not None and evidence.now < evidence.valid_from:
        yield Verdict.NOT_YET_VALID, evidence.valid_from
    if any(check.ok is None for check in _checks(evidence) if check.id != "anchor"):
        yield Verdict.CANNOT_CHECK, None
    if evidence.anchor.ok is False:
        # The proof is of another entry or log: taken together, these files are not what was issued.
        yield Verdict.TAMPERED, None
    # The issuer may be false here: nobody we know answers for this signature any more.
    yield (Verdict.VALID if evidence.issuer.ok else Verdict.UNKNOWN), None


_VERDICT_OF_STANDING: Mapping[Standing, Verdict] = {
    Standing.REVOKED: Verdict.REVOKED,
    Standing.WITHDRAWN: Verdict.REVOKED,
    Standing.REPLACED: Verdict.REPLACED,
    Standing.SUSPENDED: Verdict.SUSPENDED,
}


def _checks(evidence: Evidence) -> tuple[Check, ...]:
    findings = [("signature", evidence.signature)]
    if evidence.pdf_digest is not None:
        findings.append(("pdf_digest", evidence.pdf_digest))
    findings += [
        ("issuer", evidence.issuer),
        ("status", _status_finding(evidence.status)),
        ("validity", _validity_finding(evidence)),
        ("anchor", evidence.anchor),
    ]
    return tuple(Check(identifier, finding.ok, finding.detail) for identifier, finding in findings)


def _status_finding(status: StatusFinding) -> Finding:
    if status.standing is Standing.UNTOLD:
        return untold(status.detail)
    return Finding(status.standing is Standing.IN_FORCE, status.detail or status.standing.value)


def _validity_finding(evidence: Evidence) -> Finding:
    if evidence.valid_from is not None and evidence.now < evidence.valid_from:
        return fails(f"valid from {timestamp(evidence.valid_from)}")
    if evidence.valid_until is None:
        return holds("does not end")
    if evidence.now > evidence.valid_until:
        return fails(f"ended {timestamp(evidence.valid_until)}")
    return holds(f"until {timestamp(evidence.valid_until)}")
