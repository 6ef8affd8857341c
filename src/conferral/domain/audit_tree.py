# SPDX-License-Identifier: Apache-2.0
"""A5 for a whole log: its tree is built again, leaf by leaf, beside the stored tiles and checkpoints.

Constant memory: the roots of the perfect subtrees so far, and one tile of each level. Where leaf and tile
differ, both trees are followed: one wrong byte is one deviation, not one for each checkpoint after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from conferral.domain.audit import Deviation
from conferral.domain.checkpoint import CheckpointRefused, VerifierKey, parse, verify
from conferral.domain.merkle import EMPTY_ROOT, HASH_BYTES, TILE_WIDTH, leaf_hash, node_hash

StoredTile = Callable[[int, int], bytes]
"""`stored_tile(level, number)` returns the hashes that are stored; empty when there is no such tile."""


class CompactRange:
    """The roots of the perfect subtrees of a growing tree: all that its root is made of."""

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[bytes] = []

    def push(self, hashed: bytes) -> None:
        """Append one leaf hash."""
        size = self.size
        while size & 1:
            hashed = node_hash(self._subtrees.pop(), hashed)
            size >>= 1
        self._subtrees.append(hashed)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of the tree so far (RFC 6962 2.1)."""
        found: bytes | None = None
        for subtree in reversed(self._subtrees):
            found = subtree if found is None else node_hash(subtree, found)
        return EMPTY_ROOT if found is None else found

    def copy(self) -> CompactRange:
        """Return a tree that grows on its own from here."""
        twin = CompactRange()
        twin.size, twin._subtrees = self.size, list(self._subtrees)
        return twin


@dataclass
class _Level:
    """One level's open tile: what we computed, and what is stored."""

    ours: list[bytes] = field(default_factory=list)
    stored: bytes = b""
    is_wrong: bool = False


class Replay:
    """Replays one log up to the size it had when the audit looked; feed it leaves in order.

    Args:
        log: the log's name, for the deviations.
        stored_tile: see `StoredTile`; tiles may be wider than this replay needs.
    """

    def __init__(self, log: str, stored_tile: StoredTile) -> None:
        self._log = log
        self._stored_tile = stored_tile
        self._leaves = CompactRange()
        self._tiles: CompactRange | None = None  # followed once they differ
        self._levels: list[_Level] = []
        self._missing_from: int | None = None

    @property
    def size(self) -> int:
        """How many leaves were fed."""
        return self._leaves.size

    def feed(self, entry: bytes | None, subject: str | None) -> Iterator[Deviation]:
        """Append the next leaf; None when no leaf has the next index.

        Args:
            entry: its 32 raw bytes.
            subject: the credential it belongs to.
        """
        index = self.size
        if index % TILE_WIDTH == 0:
            self._open(0, index // TILE_WIDTH)
        place = index % TILE_WIDTH * HASH_BYTES
        stored = self._levels[0].stored[place : place + HASH_BYTES]
        hashed = leaf_hash(entry) if entry is not None else stored or bytes(HASH_BYTES)
        if entry is None and self._missing_from is None:
            self._missing_from = index
        elif entry is not None:
            yield from self.gap(index)
        if len(stored) == HASH_BYTES and stored != hashed:
            yield Deviation("A5", subject or self._subject, f"leaf {index} is not the one in the log's tile")
            self._tiles = self._tiles or self._leaves.copy()
        elif len(stored) < HASH_BYTES:
            yield from self._short(0, index // TILE_WIDTH)
        if self._tiles is not None:
            self._tiles.push(stored if len(stored) == HASH_BYTES else hashed)
        self._leaves.push(hashed)
        yield from self._climb(0, index // TILE_WIDTH, hashed)

    def gap(self, end: int) -> Iterator[Deviation]:
        """Say which leaves were missing before `end`, if any were."""
        if self._missing_from is None:
            return
        first, self._missing_from = self._missing_from, None
        which = f"leaf {first} is" if first == end - 1 else f"leaves {first} to {end - 1} are"
        yield Deviation("A5", self._subject, f"{which} missing")

    def judge_checkpoint(self, row: Any) -> Iterator[Deviation]:
        """Compare a checkpoint of this very size with the tree."""
        roots = {self._leaves.root()} | ({self._tiles.root()} if self._tiles is not None else set())
        if row.root not in roots:
            yield Deviation("A5", self._subject, f"checkpoint {row.size} has another root than its leaves")

    def root_is(self, root: bytes) -> bool:
        """Tell whether the tree, by leaves or by tiles, has this root."""
        return root == self._leaves.root() or (self._tiles is not None and root == self._tiles.root())

    @property
    def _subject(self) -> str:
        return f"log:{self._log}"

    def _open(self, level: int, number: int) -> None:
        while len(self._levels) <= level:
            self._levels.append(_Level())
        self._levels[level] = _Level(stored=self._stored_tile(level, number))

    def _short(self, level: int, number: int) -> Iterator[Deviation]:
        if not self._levels[level].is_wrong:
            self._levels[level].is_wrong = True
            yield Deviation("A5", self._subject, f"tile {level}/{number} is missing or too short")

    def _climb(self, level: int, number: int, hashed: bytes) -> Iterator[Deviation]:
        """Keep a level's tile; when it is full, its root is the next hash of the level above."""
        current = self._levels[level]
        current.ours.append(hashed)
        if len(current.ours) < TILE_WIDTH:
            return
        perfect = CompactRange()
        for one in current.ours:
            perfect.push(one)
        above, place = divmod(number, TILE_WIDTH)
        if place == 0:
            self._open(level + 1, above)
        yield from self._compare(level + 1, above, place, perfect.root())
        yield from self._climb(level + 1, above, perfect.root())

    def _compare(self, level: int, number: int, place: int, hashed: bytes) -> Iterator[Deviation]:
        current = self._levels[level]
        stored = current.stored[place * HASH_BYTES : (place + 1) * HASH_BYTES]
        if len(stored) < HASH_BYTES:
            yield from self._short(level, number)
        elif stored != hashed and not current.is_wrong and self._tiles is None:
            current.is_wrong = True
            yield Deviation("A5", self._subject, f"tile {level}/{number} has another hash at {place}")


def judge_note(log: str, row: Any, key: VerifierKey, *, signature: bool) -> Iterator[Deviation]:
    """A5: a stored checkpoint's text says what its row says, and the log's key signed it.

    Args:
        log: the log's name.
        row: a checkpoint.
        key: the log's key, under its origin.
        signature: whether the signature is checked, too.
    """
    try:
        said = verify(row.note, [key]) if signature else parse(row.note)
    except CheckpointRefused as refused:
        yield Deviation("A5", f"log:{log}", f"checkpoint {row.size}: {refused}")
        return
    if (said.origin, said.size, said.root) != (key.name, row.size, row.root):
        yield Deviation("A5", f"log:{log}", f"checkpoint {row.size} says something else than its row")
