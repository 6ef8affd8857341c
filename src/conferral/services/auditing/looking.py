# SPDX-License-Identifier: Apache-2.0
"""How the audit looks: page after page, each in one moment, and twice before it believes what it sees.

No transaction lasts longer than the reading of a page: cryptography and files come after it. Work goes on
meanwhile, so whatever seems to deviate is read again; only what deviates both times is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import Column

from conferral.domain.audit import Deviation, Remark, Tally
from conferral.services.runtime import Runtime
from conferral.store.queries import auditing

PAGE = 500  # rows a snapshot: milliseconds of reading, and a few hundred KB

Finding = Deviation | Remark
Judge = Callable[[Sequence[Any]], Iterable[Deviation]]
Tell = Callable[[str, int, int], None]
"""`tell(what, done, total)`: how far the audit is."""


def _nobody_listens(what: str, done: int, total: int) -> None:
    del what, done, total


@dataclass(slots=True)
class Audit:
    """One audit: what it may look at, what it was asked for, what it counted.

    Attributes:
        only: the checks that were asked for.
        sample: at most about so many credentials' files and signatures are checked; None checks all.
        limits: the attempts that each task is given.
        schedules: when each schedule of Beat fires, by its name.
    """

    rt: Runtime
    only: frozenset[str]
    sample: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    schedules: Mapping[str, Any] = field(default_factory=dict)
    tell: Tell = _nobody_listens
    tally: Tally = field(default_factory=Tally)
    random: Random = field(default_factory=Random)

    def wants(self, *checks: str) -> bool:
        """Tell whether one of these checks was asked for."""
        return not self.only.isdisjoint(checks)

    def through(self, what: str, column: Column[Any], judge: Judge) -> Iterator[Deviation]:
        """Judge every row of a table, page after page in the order of a key.

        Args:
            what: the rows' name, for the progress.
            column: the key; rows that are added meanwhile may or may not be looked at.
            judge: from keys to what deviates; it reads the rows itself, in one moment.
        """
        with self.rt.database.snapshot() as session:
            total = auditing.count(session, column.table)
        after, done = None, 0
        while True:
            with self.rt.database.snapshot() as session:
                keys = auditing.keys_after(session, column, after, PAGE)
            if not keys:
                self.tell(what, done, total)
                self.tally.looked_at(what, done)
                return
            yield from self.confirmed(judge, keys)
            after = keys[-1]
            done += len(keys)
            self.tell(what, done, max(total, done))

    def confirmed(self, judge: Judge, keys: Sequence[Any]) -> Iterator[Deviation]:
        """Yield what deviates at a first and at a second look."""
        suspected = list(judge(keys))
        if not suspected:
            return
        still = set(judge(sorted({one.key for one in suspected})))
        yield from (one for one in suspected if one in still)
