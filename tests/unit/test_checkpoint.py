# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib

import pytest

from conferral.adapters.signer import Signer, generate_key
from conferral.domain import checkpoint, merkle
from conferral.domain.checkpoint import CheckpointRefused, NotPinned, VerifierKey, parse_vkey

# The example of C2SP signed-note, which comes from the Go package golang.org/x/mod/sumdb/note.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ORIGIN = "creds.example.org/log"
SIGNER = Signer(generate_key()[0])
KEY = VerifierKey(ORIGIN, SIGNER.public_key)
ENTRIES = [hashlib.sha256(str(number).encode()).digest() for number in range(300)]


def _tiles() -> dict[tuple[int, int], bytes]:
    grown = merkle.append(lambda *_: b"", 0, ENTRIES)
    return {(tile.level, tile.number): tile.data for tile in grown.tiles}


TILES = _tiles()


def _read(level: int, number: int, _width: int) -> bytes:
    return TILES[level, number]


ROOT = merkle.root(300, _read)
SIGNED = checkpoint.sign_checkpoint(ORIGIN, 300, ROOT, SIGNER.sign, public_key=SIGNER.public_key)


def _proof(index: int) -> str:
    return checkpoint.tlog_proof(index, merkle.inclusion_proof(index, 300, _read), SIGNED)


def test_the_note_of_the_specification_is_reproduced() -> None:
    """Key text, key id and signature equal the signed-note example, byte for byte."""
    key = parse_vkey(VKEY)
    assert key.name == "PeterNeumann"
    assert str(key) == VKEY
    assert checkpoint.open_note(NOTE, [key]) == TEXT
    signer = Signer(SEED)
    assert checkpoint.sign_note(TEXT, "PeterNeumann", signer.sign, public_key=signer.public_key) == NOTE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        VKEY.replace("c74f20a3", "c74f20a4"),
        VKEY.replace("Peter", "Petra"),
        VKEY.replace("+ARpc", "+AhpC"),
        VKEY[:-4],
        VKEY + "!",
    ],
)
def test_a_mangled_key_is_refused(text: str) -> None:
    """A key with a wrong id, type or length is not pinned by accident."""
    with pytest.raises(CheckpointRefused):
        parse_vkey(text)


def test_a_checkpoint_reads_as_it_was_signed() -> None:
    """Origin, size and root come back, and the exact form is the documented one."""
    lines = SIGNED.split("\n")
    assert lines[:4] == [ORIGIN, "300", base64.b64encode(ROOT).decode(), ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert SIGNED.endswith("\n")
    read = checkpoint.verify(SIGNED, [KEY])
    assert (read.origin, read.size, read.root, read.note) == (ORIGIN, 300, ROOT, SIGNED)


def test_unknown_signatures_are_ignored_and_false_ones_are_not() -> None:
    """A witness that we do not know changes nothing; a false line of a pinned key refuses the note."""
    stranger = Signer(generate_key()[0])
    line = checkpoint.sign_note(TEXT, "witness.example", stranger.sign, public_key=stranger.public_key)
    cosigned = SIGNED + line.rpartition("\n\n")[2]
    assert checkpoint.verify(cosigned, [KEY]).size == 300
    forged = SIGNED.replace("\n300\n", "\n301\n")
    with pytest.raises(CheckpointRefused, match="false signature"):
        checkpoint.verify(forged, [KEY])


def test_a_checkpoint_of_another_log_is_not_accepted() -> None:
    """Keys are pinned by name: another origin, or another key of this origin, shows nothing."""
    other = VerifierKey("other.example/log", SIGNER.public_key)
    with pytest.raises(NotPinned):
        checkpoint.verify(SIGNED, [other])
    with pytest.raises(NotPinned):
        checkpoint.verify(SIGNED, [VerifierKey(ORIGIN, generate_key()[1])])
    with pytest.raises(NotPinned):
        checkpoint.verify(SIGNED, [])


@pytest.mark.parametrize(
    "note",
    [
        "",
        ORIGIN,
        SIGNED[:-1],
        SIGNED.replace("\n\n", "\n"),
        SIGNED.replace("300", "0300"),
        SIGNED.replace("300", "-1"),
        SIGNED.replace("300", "٣"),
        SIGNED.replace("— ", "- "),
        SIGNED.replace("\n", "\r\n"),
        SIGNED + "\n",
        SIGNED + "x" * checkpoint.MAX_NOTE_BYTES,
        SIGNED + SIGNED.rpartition("\n\n")[2] * checkpoint.MAX_SIGNATURE_LINES,
    ],
)
def test_a_malformed_checkpoint_is_refused(note: str) -> None:
    """Nothing but the exact format is read."""
    with pytest.raises(CheckpointRefused):
        checkpoint.verify(note, [KEY])


def test_a_root_with_two_spellings_is_refused() -> None:
    """Base64 with stray bits would give one checkpoint two texts, each truly signed."""
    encoded = base64.b64encode(ROOT).decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = encoded[:-2] + alphabet[alphabet.index(encoded[-2]) | 1] + "="
    assert base64.b64decode(stray) == ROOT
    text = f"{ORIGIN}\n300\n{stray}\n"
    note = checkpoint.sign_note(text, ORIGIN, SIGNER.sign, public_key=SIGNER.public_key)
    with pytest.raises(CheckpointRefused, match="canonical"):
        checkpoint.verify(note, [KEY])


def test_an_origin_with_white_space_cannot_be_signed() -> None:
    """A name that would break the signature line is refused."""
    with pytest.raises(CheckpointRefused):
        checkpoint.sign_checkpoint("a b", 1, ROOT, SIGNER.sign, public_key=SIGNER.public_key)
    with pytest.raises(CheckpointRefused):
        checkpoint.sign_checkpoint(ORIGIN, 1, b"short", SIGNER.sign, public_key=SIGNER.public_key)


@pytest.mark.parametrize("index", [0, 255, 256, 299])
def test_a_tlog_proof_shows_its_entry(index: int) -> None:
    """The file alone, with a pinned key, shows that the entry is logged."""
    text = _proof(index)
    assert text.startswith(f"c2sp.org/tlog-proof@v1\nindex {index}\n")
    assert text.endswith("\n\n" + SIGNED)
    found, read = checkpoint.verify_tlog_proof(text, ENTRIES[index], [KEY])
    assert (found, read.size) == (index, 300)


def test_a_tlog_proof_with_extra_data_is_read() -> None:
    """The optional extra line is not ours to judge."""
    text = _proof(3).replace("@v1\n", "@v1\nextra Zm9v\n")
    assert checkpoint.verify_tlog_proof(text, ENTRIES[3], [KEY])[0] == 3


@pytest.mark.parametrize(
    "text",
    [
        _proof(4),
        _proof(3).replace("index 3", "index 4"),
        _proof(3).replace("index 3", "index 300"),
        _proof(3).replace("index 3", "index 03"),
        _proof(3).replace("@v1", "@v2"),
        _proof(3).replace("index 3\n", "index 3\n" + base64.b64encode(ROOT).decode() + "\n"),
        _proof(3).replace("index 3\n", "index 3\nAAAA\n"),
        _proof(3).replace("index 3\n", "index 3\nnot base64\n"),
        _proof(3).replace("\n\n", "\n"),
        "c2sp.org/tlog-proof@v1\n\n" + SIGNED,
        checkpoint.tlog_proof(
            3,
            merkle.inclusion_proof(3, 300, _read),
            checkpoint.sign_checkpoint(
                ORIGIN, 300, merkle.EMPTY_ROOT, SIGNER.sign, public_key=SIGNER.public_key
            ),
        ),
    ],
)
def test_a_false_tlog_proof_is_refused(text: str) -> None:
    """Another leaf's proof, another index, a hash too many, a wrong root: none shows entry 3."""
    with pytest.raises(CheckpointRefused):
        checkpoint.verify_tlog_proof(text, ENTRIES[3], [KEY])
