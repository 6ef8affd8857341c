# SPDX-License-Identifier: Apache-2.0
"""The log's tree: RFC 6962 hashing over C2SP tlog-tiles, as pure functions on stored tiles.

A tile holds up to 256 hashes of 32 bytes: level 0 the leaf hashes, level n the roots of full tiles of level
n-1. Nothing else is stored; roots and proofs are computed. The tree is always the one of a given `size`, so a
tile that has grown since still answers for an older checkpoint. This room must never sign or store anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_PROOF_HASHES = 63
"""A tree of 2**63 leaves is the largest whose size fits a signed 64-bit column."""

ReadTile = Callable[[int, int, int], bytes]
"""`read_tile(level, number, width)` returns the stored hashes of a tile: at least `width`, perhaps more."""


class BrokenTree(ValueError):
    """A stored tile is missing or too short, or a question lies outside the tree."""


@dataclass(frozen=True)
class Tile:
    """A tile as it has to be stored: `data` holds `width` hashes, 1 to 256."""

    level: int
    number: int
    width: int
    data: bytes


@dataclass(frozen=True)
class Appended:
    """What an append produced: the new and the grown tiles, the new size and its root."""

    tiles: tuple[Tile, ...]
    size: int
    root: bytes


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry as a leaf (RFC 6962 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees as their parent (RFC 6962 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(read_tile: ReadTile, size: int, entries: Sequence[bytes]) -> Appended:
    """Grow a tree, reading only the right-most tile of each level.

    Args:
        read_tile: the stored tiles of the tree of `size`.
        size: leaves so far.
        entries: raw entries, in their order.

    Raises:
        BrokenTree: a tile of the right edge is missing or too short.
    """
    new_size = size + len(entries)
    tiles: list[Tile] = []
    edge: list[bytes] = []
    hashes = [leaf_hash(entry) for entry in entries]
    for level in _levels(new_size):
        before = size >> (level * TILE_HEIGHT)
        number, width = divmod(before, TILE_WIDTH)
        stored = _read(read_tile, level, number, width) if width else b""
        grown, hashes = _grow(level, number, stored, hashes)
        tiles.extend(grown)
        open_tile = grown[-1].data if grown else stored
        edge.append(b"" if len(open_tile) == TILE_WIDTH * HASH_BYTES else open_tile)
    return Appended(tuple(tiles), new_size, _root_of_edge(edge))


def root(size: int, read_tile: ReadTile) -> bytes:
    """Compute the root of the tree of a size from its right edge."""
    edge = []
    for level in _levels(size):
        number, width = divmod(size >> (level * TILE_HEIGHT), TILE_WIDTH)
        edge.append(_read(read_tile, level, number, width) if width else b"")
    return _root_of_edge(edge)


def inclusion_proof(index: int, size: int, read_tile: ReadTile) -> list[bytes]:
    """Prove that a leaf stands in the tree of a size (RFC 6962 2.1.1): siblings from the leaf upward.

    Raises:
        BrokenTree: the index lies outside, or a tile is missing.
    """
    if not 0 <= index < size:
        raise BrokenTree(f"there is no leaf {index} in a tree of {size}")
    reader = _Ranges(size, read_tile)
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _largest_power_below(end - begin)
        if index < middle:
            proof.append(reader.root(middle, end))
            end = middle
        else:
            proof.append(reader.root(begin, middle))
            begin = middle
    return proof[::-1]


def consistency_proof(old_size: int, new_size: int, read_tile: ReadTile) -> list[bytes]:
    """Prove that the tree of `old_size` begins the tree of `new_size` (RFC 6962 2.1.2).

    Empty for an old size of 0 and for equal sizes.
    """
    if not 0 <= old_size <= new_size:
        raise BrokenTree(f"a tree of {new_size} does not continue one of {old_size}")
    if old_size in {0, new_size}:
        return []
    reader = _Ranges(new_size, read_tile)
    proof: list[bytes] = []
    begin, end, is_whole = 0, new_size, True
    while old_size != end:
        middle = begin + _largest_power_below(end - begin)
        if old_size <= middle:
            proof.append(reader.root(middle, end))
            end = middle
        else:
            proof.append(reader.root(begin, middle))
            begin, is_whole = middle, False
    if not is_whole:
        proof.append(reader.root(begin, end))
    return proof[::-1]


def verify_inclusion(entry: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Check an inclusion proof (RFC 9162 2.1.3.2); exactly the right number of hashes is required.

    Args:
        entry: the raw entry, not its leaf hash.
        index: its place, from 0.
        size: leaves of the tree.
        proof: siblings from the leaf upward.
        expected: the root a checkpoint signs.
    """
    if not 0 <= index < size or not _are_hashes(proof):
        return False
    number, last, found = index, size - 1, leaf_hash(entry)
    for sibling in proof:
        if last == 0:
            return False
        if number & 1 or number == last:
            found = node_hash(sibling, found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and found == expected


def verify_consistency(
    sizes: tuple[int, int], proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> bool:
    """Check a consistency proof between two sizes (RFC 9162 2.1.4.2); exactly the right number of hashes."""
    old_size, new_size = sizes
    if not 0 <= old_size <= new_size or not _are_hashes(proof):
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if old_size == new_size:
        return not proof and old_root == new_root
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        return False
    number, last = old_size - 1, new_size - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    found_old = found_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            found_old, found_new = node_hash(sibling, found_old), node_hash(sibling, found_new)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found_new = node_hash(found_new, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and found_old == old_root and found_new == new_root


def tile_path(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """Return a tile's path below the log's URL: `tile/<L>/<N>[.p/<W>]` (C2SP tlog-tiles)."""
    return f"tile/{level}/{_number_path(number)}{_partial_suffix(width)}"


def entries_path(number: int, width: int = TILE_WIDTH) -> str:
    """Return the path of an entry bundle: `tile/entries/<N>[.p/<W>]`."""
    return f"tile/entries/{_number_path(number)}{_partial_suffix(width)}"


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Write up to 256 entries as the bundle of one tile: each with its length as big-endian uint16."""
    if not 1 <= len(entries) <= TILE_WIDTH:
        raise BrokenTree(f"a bundle holds 1 to {TILE_WIDTH} entries")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def tile_widths(size: int) -> list[tuple[int, int, int]]:
    """Return (level, number, width) of the right-most tile of each level that a tree of a size needs."""
    found = []
    for level in _levels(size):
        number, width = divmod(size >> (level * TILE_HEIGHT), TILE_WIDTH)
        found.append((level, number, width) if width else (level, number - 1, TILE_WIDTH))
    return found


def _number_path(number: int) -> str:
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    return "/".join(groups)


def _partial_suffix(width: int) -> str:
    if not 1 <= width <= TILE_WIDTH:
        raise BrokenTree(f"a tile holds 1 to {TILE_WIDTH} hashes")
    return "" if width == TILE_WIDTH else f".p/{width}"


def _levels(size: int) -> range:
    """Return the levels that hold at least one hash in a tree of a size."""
    return range(-(-size.bit_length() // TILE_HEIGHT))


def _read(read_tile: ReadTile, level: int, number: int, width: int) -> bytes:
    data = read_tile(level, number, width)
    if len(data) < width * HASH_BYTES:
        raise BrokenTree(f"tile {level}/{number} is missing or shorter than {width} hashes")
    return data[: width * HASH_BYTES]


def _grow(level: int, number: int, stored: bytes, hashes: list[bytes]) -> tuple[list[Tile], list[bytes]]:
    """Append hashes to a level; return its changed tiles and the hashes the level above gains."""
    data = stored + b"".join(hashes)
    full_bytes = TILE_WIDTH * HASH_BYTES
    tiles: list[Tile] = []
    parents: list[bytes] = []
    if not hashes:
        return tiles, parents
    for start in range(0, len(data), full_bytes):
        piece = data[start : start + full_bytes]
        tiles.append(Tile(level, number + len(tiles), len(piece) // HASH_BYTES, piece))
        if len(piece) == full_bytes:
            parents.append(_perfect_root(piece))
    return tiles, parents


def _perfect_root(data: bytes) -> bytes:
    """Fold a power of two of hashes to their root."""
    hashes = [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def _root_of_edge(edge: Sequence[bytes]) -> bytes:
    """Fold the open tiles of all levels, smallest subtree first: each is a binary digit of the size."""
    found: bytes | None = None
    for data in edge:
        width = len(data) // HASH_BYTES
        end = width
        for bit in range(TILE_HEIGHT):
            if width >> bit & 1:
                begin = end - (1 << bit)
                subtree = _perfect_root(data[begin * HASH_BYTES : end * HASH_BYTES])
                found = subtree if found is None else node_hash(subtree, found)
                end = begin
    return EMPTY_ROOT if found is None else found


class _Ranges:
    """Roots of ranges of leaves of one tree, each tile read once."""

    def __init__(self, size: int, read_tile: ReadTile) -> None:
        self._size = size
        self._read_tile = read_tile
        self._tiles: dict[tuple[int, int], bytes] = {}

    def root(self, begin: int, end: int) -> bytes:
        """Return the root over leaves [begin, end); begin is a multiple of a power of two >= their number."""
        found: bytes | None = None
        subtrees = []
        while begin < end:
            count = 1 << ((end - begin).bit_length() - 1)
            subtrees.append(self._perfect(begin, count))
            begin += count
        for subtree in reversed(subtrees):
            found = subtree if found is None else node_hash(subtree, found)
        if found is None:
            raise BrokenTree("an empty range has no root")
        return found

    def _perfect(self, begin: int, count: int) -> bytes:
        level = (count.bit_length() - 1) // TILE_HEIGHT
        number, first = divmod(begin >> (level * TILE_HEIGHT), TILE_WIDTH)
        width = count >> (level * TILE_HEIGHT)
        data = self._tile(level, number)
        return _perfect_root(data[first * HASH_BYTES : (first + width) * HASH_BYTES])

    def _tile(self, level: int, number: int) -> bytes:
        if (level, number) not in self._tiles:
            width = min(TILE_WIDTH, (self._size >> (level * TILE_HEIGHT)) - number * TILE_WIDTH)
            self._tiles[level, number] = _read(self._read_tile, level, number, width)
        return self._tiles[level, number]


def _largest_power_below(count: int) -> int:
    """Return the largest power of two smaller than a count of at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _are_hashes(proof: Sequence[bytes]) -> bool:
    return len(proof) <= MAX_PROOF_HASHES and all(len(step) == HASH_BYTES for step in proof)
