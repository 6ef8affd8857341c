# SPDX-License-Identifier: Apache-2.0
"""Rows that bring their own id: which of them are new, which were issued before, which contradict.

This is what lets somebody send a file twice, or a mended part of it, and have every person's credential
once. Nothing is written here; the unique constraint has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from conferral.services.admission import Admitted
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import external_ids

LOOKED_UP: Final = 500  # external ids a query


@dataclass(frozen=True, slots=True)
class New:
    """Nobody has this id, or the row has none."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """An earlier row of the same file has this id; `number` is its number."""

    number: int


@dataclass(frozen=True, slots=True)
class Same:
    """A credential has this id and the same content: the row was issued before."""

    credential_id: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A credential has this id and other content."""

    credential_id: str


Standing = New | Repeated | Same | Taken


class ExternalIds:
    """Looks at the rows of one file, part after part, and remembers the ids it has seen."""

    def __init__(self, rt: Runtime, caller: Caller, version_id: str) -> None:
        self._rt = rt
        self._caller = caller
        self._version_id = version_id
        self._first_rows: dict[str, int] = {}

    def standings(self, rows: Sequence[tuple[int, Admitted]]) -> Iterator[Standing]:
        """Yield the standing of each row (its number, what it asks for), in their order."""
        ids = [one.external_id for _, one in rows if one.external_id is not None]
        known = self._known(ids)
        for number, one in rows:
            if one.external_id is None:
                yield New()
                continue
            first = self._first_rows.setdefault(one.external_id, number)
            if first != number:
                yield Repeated(first)
            elif one.external_id not in known:
                yield New()
            else:
                credential_id, digest = known[one.external_id]
                is_same = digest == one.content_digest(self._version_id)
                yield Same(credential_id) if is_same else Taken(credential_id)

    def _known(self, wanted: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        known: dict[str, tuple[str, bytes]] = {}
        if not wanted:
            return known
        with self._rt.database.snapshot() as session:
            for start in range(0, len(wanted), LOOKED_UP):
                rows = external_ids.taken(
                    session,
                    self._caller.organisation_id,
                    self._caller.mode,
                    wanted[start : start + LOOKED_UP],
                )
                known.update({row.external_id: (row.id, row.content_digest) for row in rows})
        return known
