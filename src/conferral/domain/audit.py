# SPDX-License-Identifier: Apache-2.0
"""What `conferral audit` checks, and the lines in which it says what it found.

A check is a promise that can be read from rows and files alone. This room judges what it is handed; it never
reads anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

CHECKS: Final[Mapping[str, str]] = {
    "A1": "every requested credential is final or has a live run",
    "A2": "states and their evidence agree",
    "A3": "stored files are those that were signed and recorded",
    "A4": "every signature verifies under a key of its issuer",
    "A5": "the log's tree, tiles, leaves and checkpoints agree",
    "A6": "anchors on chains: nonces, transactions, evidence",
    "A7": "one Message-ID, one event, one delivery for each who is told",
    "A8": "attempts are complete, ended, within their budget",
    "A9": "no attempt began before it was due",
    "A10": "schedules fired each slot once",
    "A11": "rows of one organisation refer to rows of the same one",
    "A12": "the sealed trail was not changed",
    "A13": "signed status lists say what the rows say",
    "A14": "every file that a row names is there",
}


class UnknownCheck(ValueError):
    """Somebody asked for a check that there is not."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that is not as promised.

    Attributes:
        check: `A1` to `A14`.
        subject: the id that a person looks up.
        text: what is wrong with it; no personal data.
        key: the row to look at again before this is believed; never shown.
    """

    check: str
    subject: str
    text: str
    key: str = field(default="", compare=False)

    def line(self) -> str:
        """Return the line that is printed.

        >>> Deviation("A5", "log:live", "leaf 812 missing from checkpoint 1992").line()
        'A5 log:live leaf 812 missing from checkpoint 1992'
        """
        return f"{self.check} {self.subject} {self.text}"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that is worth saying and is no deviation."""

    check: str
    text: str

    def line(self) -> str:
        """Return the line that is printed."""
        return f"{self.check} {self.text}"


@dataclass(slots=True)
class Tally:
    """What was looked at, and how much of it deviates."""

    credentials: int = 0
    runs: int = 0
    log: int = 0
    deviations: int = 0
    orphans: int = 0

    def looked_at(self, what: str, count: int) -> None:
        """Count rows of a kind that the last line names."""
        if what == "credentials":
            self.credentials = count
        elif what == "runs":
            self.runs = count

    def line(self, seconds: float) -> str:
        """Return the last line.

        >>> Tally(credentials=10_000, runs=30_211, log=10_000).line(18.2)
        'checked 10,000 credentials, 30,211 runs, log 10,000 · deviations 0 · 18 s'
        """
        looked = f"checked {self.credentials:,} credentials, {self.runs:,} runs, log {self.log:,}"
        return f"{looked} · deviations {self.deviations:,} · {seconds:.0f} s"


def chosen(named: Sequence[str]) -> frozenset[str]:
    """Return the checks that were asked for; all when none was named.

    Raises:
        UnknownCheck: one of them does not exist.

    >>> sorted(chosen(["a3", "A5"]))
    ['A3', 'A5']
    """
    wanted = [name.strip().upper() for name in named if name.strip()]
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        raise UnknownCheck(f"there is no check {unknown[0][:20]!r}; there are A1 to A{len(CHECKS)}")
    return frozenset(wanted or CHECKS)
