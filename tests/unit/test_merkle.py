# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conferral.domain import merkle
from conferral.domain.merkle import BrokenTree

# The inputs and the roots of the trees of 1 to 8 leaves that Certificate Transparency's tests have used since
# RFC 6962, and the paths and proofs over them.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CONSISTENCY_6_TO_8 = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]
INCLUSION_5_OF_8 = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]


class Log:
    """A log in memory: the tiles that a store would hold, each in its widest form."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0
        self.root = merkle.EMPTY_ROOT
        self.reads = 0

    def read_tile(self, level: int, number: int, _width: int) -> bytes:
        """Return the widest stored form."""
        self.reads += 1
        return self.tiles.get((level, number), b"")

    def append(self, entries: list[bytes]) -> merkle.Appended:
        """Grow and store."""
        grown = merkle.append(self.read_tile, self.size, entries)
        for tile in grown.tiles:
            assert tile.data.startswith(self.tiles.get((tile.level, tile.number), b""))
            assert len(tile.data) == tile.width * merkle.HASH_BYTES
            self.tiles[tile.level, tile.number] = tile.data
        self.size, self.root = grown.size, grown.root
        return grown


def _reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1, word for word: the oracle."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = _reference_root(leaves[:split]), _reference_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def _entries(count: int, first: int = 0) -> list[bytes]:
    return [hashlib.sha256(str(number).encode()).digest() for number in range(first, first + count)]


def test_the_roots_of_the_known_trees() -> None:
    """Roots of 0 to 8 leaves equal the published ones, grown one by one and at once."""
    log = Log()
    assert merkle.root(0, log.read_tile) == hashlib.sha256(b"").digest()
    for size, expected in enumerate(ROOTS, start=1):
        assert log.append([LEAVES[size - 1]]).root.hex() == expected
        at_once = Log()
        assert at_once.append(LEAVES[:size]).root.hex() == expected


def test_the_proofs_of_the_known_trees() -> None:
    """Inclusion and consistency proofs equal the published ones."""
    log = Log()
    log.append(LEAVES)
    proof = merkle.inclusion_proof(5, 8, log.read_tile)
    assert [step.hex() for step in proof] == INCLUSION_5_OF_8
    proof = merkle.consistency_proof(6, 8, log.read_tile)
    assert [step.hex() for step in proof] == CONSISTENCY_6_TO_8


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 512, 513, 767, 1023, 1024, 1025, 2600])
def test_every_leaf_is_proved_around_tiles_and_powers(size: int) -> None:
    """At sizes around powers of two and full tiles each leaf has a proof, and no other leaf's proof fits."""
    log = Log()
    entries = _entries(size)
    log.append(entries)
    assert log.root == _reference_root(entries) == merkle.root(size, log.read_tile)
    for index in {0, 1, size // 2, 254, 255, 256, 257, size - 2, size - 1} & set(range(size)):
        proof = merkle.inclusion_proof(index, size, log.read_tile)
        assert merkle.verify_inclusion(entries[index], index, size, proof, log.root)
        if size > 1:
            assert not merkle.verify_inclusion(entries[index - 1], index, size, proof, log.root)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_a_tree_grown_in_turns_is_the_tree_grown_at_once(turns: list[int]) -> None:
    """However leaves are gathered into turns, tiles and root are the same; old roots stay provable."""
    grown, at_once = Log(), Log()
    entries = _entries(sum(turns))
    history = [(0, merkle.EMPTY_ROOT)]
    for turn in turns:
        grown.append(entries[grown.size : grown.size + turn])
        history.append((grown.size, grown.root))
    at_once.append(entries)
    assert grown.tiles == at_once.tiles
    assert grown.root == at_once.root == merkle.root(grown.size, grown.read_tile)
    for size, root in history:
        assert merkle.root(size, grown.read_tile) == root
        proof = merkle.consistency_proof(size, grown.size, grown.read_tile)
        assert merkle.verify_consistency((size, grown.size), proof, root, grown.root)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_forged_proofs_are_refused(data: st.DataObject) -> None:
    """A hash too many, too few, changed or exchanged, another index or size: nothing but the proof passes."""
    size = data.draw(st.integers(2, 600))
    index = data.draw(st.integers(0, size - 1))
    log = Log()
    entries = _entries(size)
    log.append(entries)
    proof = merkle.inclusion_proof(index, size, log.read_tile)
    assert merkle.verify_inclusion(entries[index], index, size, proof, log.root)
    place = data.draw(st.integers(0, len(proof) - 1))
    flipped = bytes([proof[place][0] ^ 1]) + proof[place][1:]
    for forged in (
        proof[:-1],
        proof[1:],
        [*proof, proof[-1]],
        [*proof[:place], flipped, *proof[place + 1 :]],
        [*proof[:place], b"", *proof[place + 1 :]],
        [],
    ):
        assert not merkle.verify_inclusion(entries[index], index, size, forged, log.root)
    other = data.draw(st.integers(-2, size + 2).filter(lambda number: number != index))
    assert not merkle.verify_inclusion(entries[index], other, size, proof, log.root)


@pytest.mark.parametrize("size", range(1, 20))
def test_a_proof_fits_exactly_one_index(size: int) -> None:
    """The proof of one leaf shows it at no other place: only the exact length tells some of them apart."""
    log = Log()
    entries = _entries(size)
    log.append(entries)
    for index in range(size):
        proof = merkle.inclusion_proof(index, size, log.read_tile)
        fitting = [
            claimed
            for claimed in range(size)
            if merkle.verify_inclusion(entries[index], claimed, size, proof, log.root)
        ]
        assert fitting == [index]


def test_a_proof_longer_than_its_tree_is_refused() -> None:
    """Leaf 1 of two is not leaf 0 of one, though its hashes fold to the root."""
    log = Log()
    log.append(_entries(2))
    sibling = merkle.leaf_hash(_entries(1)[0])
    assert not merkle.verify_inclusion(_entries(2)[1], 0, 1, [sibling], log.root)


def test_a_consistency_proof_fits_exactly_its_sizes() -> None:
    """Up to 12 leaves no proof between two trees passes for other places of its old tree, or a longer one."""
    log = Log()
    roots = [merkle.EMPTY_ROOT, *(log.append(_entries(1, number)).root for number in range(12))]
    for new in range(1, 13):
        for old in range(1, new):
            proof = merkle.consistency_proof(old, new, log.read_tile)
            fitting = [
                claimed
                for claimed in range(1, new + 1)
                if merkle.verify_consistency((claimed, new), proof, roots[old], roots[new])
            ]
            assert fitting == [old]


def test_an_inner_node_is_no_leaf() -> None:
    """Folding without the length check would accept a node as a leaf; prefixes and check refuse it."""
    log = Log()
    log.append(_entries(8))
    left = merkle.leaf_hash(_entries(1)[0])
    right = merkle.leaf_hash(_entries(2)[1])
    proof = merkle.inclusion_proof(0, 8, log.read_tile)
    assert not merkle.verify_inclusion(left + right, 0, 4, proof[1:], log.root)
    assert not merkle.verify_inclusion(left + right, 0, 8, proof[1:], log.root)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 20))
def test_forged_consistency_is_refused(first: int, second: int, place: int) -> None:
    """A log that dropped or changed a leaf cannot prove that it continues the old one."""
    old, new = sorted((first, second))
    log = Log()
    log.append(_entries(old))
    old_root = log.root
    log.append(_entries(new - old, old))
    proof = merkle.consistency_proof(old, new, log.read_tile)
    assert merkle.verify_consistency((old, new), proof, old_root, log.root)
    wrong = hashlib.sha256(b"wrong").digest()
    assert not merkle.verify_consistency((old, new), proof, wrong, log.root)
    if old == new:
        assert not merkle.verify_consistency((old, new), [wrong], old_root, log.root)
        return
    assert not merkle.verify_consistency((old, new), proof, old_root, wrong)
    assert not merkle.verify_consistency((old, new), [*proof, wrong], old_root, log.root)
    assert not merkle.verify_consistency((old, new), proof[:-1], old_root, log.root)
    assert not merkle.verify_consistency((new, old), proof, old_root, log.root)
    place %= len(proof)
    assert not merkle.verify_consistency(
        (old, new), [*proof[:place], wrong, *proof[place + 1 :]], old_root, log.root
    )


def test_consistency_with_nothing_is_empty() -> None:
    """Every log continues the empty one, with an empty proof only."""
    log = Log()
    log.append(_entries(5))
    assert merkle.consistency_proof(0, 5, log.read_tile) == []
    assert merkle.verify_consistency((0, 5), [], merkle.EMPTY_ROOT, log.root)
    assert not merkle.verify_consistency((0, 5), [log.root], merkle.EMPTY_ROOT, log.root)
    assert not merkle.verify_consistency((0, 5), [], log.root, log.root)


def test_an_older_size_is_proved_from_grown_tiles() -> None:
    """Tiles that have grown since still answer for an older checkpoint."""
    log = Log()
    log.append(_entries(300))
    old_root = log.root
    log.append(_entries(70_000, 300))
    proof = merkle.inclusion_proof(299, 300, log.read_tile)
    assert merkle.verify_inclusion(_entries(1, 299)[0], 299, 300, proof, old_root)
    proof = merkle.inclusion_proof(69_999, log.size, log.read_tile)
    assert merkle.verify_inclusion(_entries(1, 69_999)[0], 69_999, log.size, proof, log.root)


def test_a_missing_tile_is_an_error_and_never_a_wrong_root() -> None:
    """A store that lost a tile stops the log instead of forking it."""
    log = Log()
    log.append(_entries(300))
    log.tiles[0, 1] = log.tiles[0, 1][:-1]
    with pytest.raises(BrokenTree):
        log.append(_entries(1, 300))
    with pytest.raises(BrokenTree):
        merkle.root(300, log.read_tile)
    with pytest.raises(BrokenTree):
        merkle.inclusion_proof(300, 300, log.read_tile)
    with pytest.raises(BrokenTree):
        merkle.consistency_proof(301, 300, log.read_tile)


def test_an_append_reads_only_the_right_edge_and_takes_milliseconds() -> None:
    """One turn of 1,000 leaves reads at most one tile a level, however long the log is."""
    log = Log()
    log.append(_entries(70_001))
    log.reads = 0
    began = time.process_time()
    grown = log.append(_entries(1_000, 70_001))
    assert log.reads <= 3
    assert len(grown.tiles) == 6
    assert time.process_time() - began < 0.1


def test_tile_paths_are_those_of_tlog_tiles() -> None:
    """The examples of C2SP tlog-tiles."""
    assert merkle.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert merkle.tile_path(0, 273, 112) == "tile/0/273.p/112"
    assert merkle.tile_path(1, 0) == "tile/1/000"
    assert merkle.entries_path(999) == "tile/entries/999"
    assert merkle.entries_path(1000, 1) == "tile/entries/x001/000.p/1"
    with pytest.raises(BrokenTree):
        merkle.tile_path(0, 0, 0)


def test_the_right_most_tiles_of_a_size() -> None:
    """The tiles a publisher must have: partial widths are never empty."""
    assert merkle.tile_widths(0) == []
    assert merkle.tile_widths(256) == [(0, 0, 256), (1, 0, 1)]
    assert merkle.tile_widths(70_000) == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]


def test_an_entry_bundle_names_each_length() -> None:
    """Entries are written with their length as uint16."""
    assert merkle.entry_bundle([b"ab", b""]) == b"\x00\x02ab\x00\x00"
    with pytest.raises(BrokenTree):
        merkle.entry_bundle([])
