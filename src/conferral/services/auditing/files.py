# SPDX-License-Identifier: Apache-2.0
"""A3, A4, A14: each credential's files and signature; rows without files, files without rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Final

from conferral.domain import audit_files
from conferral.domain.audit import Deviation, Remark
from conferral.services import signing_keys
from conferral.services.auditing.looking import PAGE, Audit, Finding
from conferral.store import tables
from conferral.store.queries import auditing
from conferral.store.records import Record

ORPHAN_AFTER: Final = timedelta(hours=24)  # a younger one may be named by a commit to come
ORPHANS_SHOWN: Final = 20
A_PASS: Final = 100_000
"""File names held in memory at once: some 10 MB."""


def examine(audit: Audit) -> Iterator[Finding]:
    """Look at the files of every credential, then at every file."""
    if audit.wants("A3", "A4", "A14"):
        yield from audit.through("files", tables.credentials.c.id, _Files(audit).judge)
    if audit.wants("A14"):
        yield from _orphans(audit)


class _Files:
    """Judges the files of a page of credentials; a row's files are read after its row, outside of it."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._keys: dict[tuple[str, str], Mapping[str, bytes]] = {}
        with audit.rt.database.snapshot() as session:
            total = auditing.count(session, tables.credentials)
        self._share = 1.0 if audit.sample is None else audit.sample / max(1, total)
        self._picked: set[str] = set()

    def judge(self, ids: Sequence[str]) -> Iterator[Deviation]:
        """Yield what deviates; who is erased meanwhile has no files at the second look, and needs none."""
        with self._audit.rt.database.still() as session:
            rows = [
                *(row for row in auditing.credentials_of(session, ids) if row.vc_sha256 is not None),
                *auditing.revisions_of(session, ids),
            ]
        for row in rows:
            yield from self._missing(row)
            if self._is_picked(row) and self._audit.wants("A3", "A4"):
                yield from self._judge_one(row)

    def _is_picked(self, row: Record) -> bool:
        # Once picked, always picked: a suspicion has to be looked at again.
        if row.id in self._picked or self._share >= 1.0:
            return True
        if self._audit.random.random() >= self._share:
            return False
        self._picked.add(row.id)
        return True

    def _missing(self, row: Record) -> Iterator[Deviation]:
        for name in ("vc_sha256", "pdf_sha256"):
            digest = getattr(row, name)
            if digest is not None and not self._audit.rt.blobs.has(digest):
                yield Deviation("A14", row.id, f"file {digest} ({name}) is missing", key=row.id)

    def _judge_one(self, row: Record) -> Iterator[Deviation]:
        stored, final = self._read(row.vc_sha256), self._read(row.pdf_sha256)
        if self._audit.wants("A3"):
            yield from audit_files.judge_files(row, stored, final)
        if stored is not None and self._audit.wants("A4"):
            yield from audit_files.judge_signature(row, stored, self._keys_of(row))

    def _read(self, digest: str | None) -> bytes | None:
        if digest is None:
            return None
        try:
            return self._audit.rt.blobs.get(digest)
        except KeyError:
            return None

    def _keys_of(self, row: Record) -> Mapping[str, bytes]:
        owner = (row.organisation_id, row.mode)
        if row.verification_method not in self._keys.get(owner, {}):  # also: rotated since
            known = signing_keys.known(self._audit.rt, *owner)
            self._keys[owner] = {method: key.public_key for method, key in known.items()}
        return self._keys[owner]


def _orphans(audit: Audit) -> Iterator[Remark]:
    """Say which old files no row names: a commit that never came left them, and nobody misses them."""
    before = (audit.rt.database.now() - ORPHAN_AFTER).timestamp()
    found: list[tuple[str, int]] = []
    with audit.rt.database.snapshot() as session:
        passes = -(-2 * auditing.count(session, tables.credentials) // A_PASS) or 1
    bounds = [f"{256 * step // passes:02x}" for step in range(min(passes, 256))] + ["g"]
    for low, high in pairwise(bounds):
        with audit.rt.database.snapshot() as session:
            named = set(auditing.named_files(session, low, high))
        old = (one for one in audit.rt.blobs.stored() if low <= one[0].lstrip(".") < high and one[2] < before)
        unnamed = [(name, size) for name, size, _ in old if name not in named]
        for start in range(0, len(unnamed), PAGE):
            some = unnamed[start : start + PAGE]
            with audit.rt.database.snapshot() as session:
                again = auditing.which_are_named(session, [name for name, _ in some])
            found += [one for one in some if one[0] not in again]
        audit.tell("stored files", bounds.index(high), len(bounds) - 1)
    audit.tally.orphans = len(found)
    for name, size in found[:ORPHANS_SHOWN]:
        yield Remark("A14", f"orphan: file {name} ({size:,} bytes) is named by no row")
    if len(found) > ORPHANS_SHOWN:
        yield Remark("A14", f"orphan: {len(found) - ORPHANS_SHOWN:,} more files are named by no row")
