# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and proofs as text: C2SP tlog-checkpoint, signed-note and tlog-proof.

A checkpoint is the signed sentence "the log of this origin has this size and this root". This room writes and
reads it; it must never accept a key that the caller did not pin.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from conferral.domain.merkle import HASH_BYTES, MAX_PROOF_HASHES, verify_inclusion

ED25519_NOTE = b"\x01"
"""Signature type of signed-note for Ed25519."""
KEY_ID_BYTES = 4
MAX_NOTE_BYTES = 64 * 1024
"""A checkpoint has ~200 bytes, and ~150 more for each cosignature."""
MAX_SIGNATURE_LINES = 100
_CHECKPOINT_LINES = 3
PROOF_HEADER = "c2sp.org/tlog-proof@v1"

_NAME = re.compile(r"[^\s+]+")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


class CheckpointRefused(ValueError):
    """The note, checkpoint or proof is malformed, or not signed by the pinned key."""


class NotPinned(CheckpointRefused):
    """No line is by a pinned key: nothing false, but nothing shown either."""


@dataclass(frozen=True)
class VerifierKey:
    """A pinned log key: `name+hex(key id)+base64(0x01 ‖ public key)` as text."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell keys of one name apart."""
        return key_id(self.name, self.public_key)

    def __str__(self) -> str:
        return vkey(self.name, self.public_key)


@dataclass(frozen=True)
class Note:
    """A signed note: its text with the last newline, and (name, key id, signature) of each line."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says, and the note that says it."""

    origin: str
    size: int
    root: bytes
    note: str


@dataclass(frozen=True)
class TlogProof:
    """A parsed tlog-proof: the entry's index, its siblings upward, and the checkpoint verbatim."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str


def key_id(name: str, public_key: bytes) -> bytes:
    """Return the first 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519_NOTE + public_key).digest()[:KEY_ID_BYTES]


def vkey(name: str, public_key: bytes) -> str:
    """Write a verifier key as one line."""
    encoded = base64.b64encode(ED25519_NOTE + public_key).decode("ascii")
    return f"{_sound_name(name)}+{key_id(name, public_key).hex()}+{encoded}"


def parse_vkey(text: str) -> VerifierKey:
    """Read a verifier key.

    Raises:
        CheckpointRefused: malformed, of another type than Ed25519, or with a key id that is not its own.
    """
    name, _, rest = text.strip().partition("+")
    identifier, _, encoded = rest.partition("+")
    decoded = _base64(encoded)
    if decoded[:1] != ED25519_NOTE or len(decoded) != 1 + 32 or not _NAME.fullmatch(name):
        raise CheckpointRefused("the text is not an Ed25519 verifier key")
    key = VerifierKey(name, decoded[1:])
    if key.key_id.hex() != identifier:
        raise CheckpointRefused("the verifier key's id is not its own")
    return key


def sign_checkpoint(
    origin: str, size: int, root: bytes, sign: Callable[[bytes], bytes], *, public_key: bytes
) -> str:
    """Sign a checkpoint and return the whole note.

    Args:
        origin: the log's name, its URL prefix without scheme; no white space, no `+`.
        size: leaves, at least 0.
        root: 32 bytes.
        sign: Ed25519 over the bytes it is given.
        public_key: the key `sign` signs with; its id stands in the signature line.
    """
    if len(root) != HASH_BYTES or size < 0:
        raise CheckpointRefused("a checkpoint has a size and a root of 32 bytes")
    text = f"{_sound_name(origin)}\n{size}\n{base64.b64encode(root).decode('ascii')}\n"
    return sign_note(text, origin, sign, public_key=public_key)


def sign_note(text: str, name: str, sign: Callable[[bytes], bytes], *, public_key: bytes) -> str:
    """Sign a note's text (ended by a newline) and return text, empty line and signature line."""
    signature = base64.b64encode(key_id(name, public_key) + sign(text.encode())).decode("ascii")
    return f"{text}\n— {name} {signature}\n"


def parse_note(note: str) -> Note:
    """Split a signed note into text and signatures, without believing any of them.

    Raises:
        CheckpointRefused: not the signed-note format.
    """
    if len(note.encode("utf-8", "surrogatepass")) > MAX_NOTE_BYTES:
        raise CheckpointRefused("the note is larger than 64 KiB")
    if re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]", note):
        raise CheckpointRefused("the note holds a control character")
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise CheckpointRefused("the note has no signature")
    signatures: list[tuple[str, bytes, bytes]] = []
    for line in lines[:-1].split("\n"):
        match = _SIGNATURE_LINE.fullmatch(line)
        decoded = _base64(match[2]) if match else b""
        if match is None or len(decoded) <= KEY_ID_BYTES or len(signatures) >= MAX_SIGNATURE_LINES:
            raise CheckpointRefused("a signature line is malformed")
        signatures.append((match[1], decoded[:KEY_ID_BYTES], decoded[KEY_ID_BYTES:]))
    return Note(text + "\n", tuple(signatures))


def open_note(note: str, keys: Sequence[VerifierKey]) -> str:
    """Return a note's text if one of the pinned keys signed it; lines of unknown keys are ignored.

    Raises:
        NotPinned: no line by a pinned key.
        CheckpointRefused: malformed, or a false line of a pinned key.
    """
    parsed = parse_note(note)
    pinned = {(key.name, key.key_id): key.public_key for key in keys}
    is_signed = False
    for name, identifier, signature in parsed.signatures:
        public_key = pinned.get((name, identifier))
        if public_key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, parsed.text.encode())
        except (InvalidSignature, ValueError):
            raise CheckpointRefused("the note carries a false signature of a pinned key") from None
        is_signed = True
    if not is_signed:
        raise NotPinned("the note is not signed by a pinned key")
    return parsed.text


def parse(note: str) -> Checkpoint:
    """Read a checkpoint without checking its signature; extension lines are read over.

    Raises:
        CheckpointRefused: not a checkpoint.
    """
    lines = parse_note(note).text.split("\n")
    if len(lines) <= _CHECKPOINT_LINES or not all(lines[:-1]):
        raise CheckpointRefused("the note is not a checkpoint")
    origin, size, encoded_root = lines[:_CHECKPOINT_LINES]
    root = _base64(encoded_root)
    if not _DECIMAL.fullmatch(size) or len(root) != HASH_BYTES:
        raise CheckpointRefused("the checkpoint's size or root is malformed")
    return Checkpoint(origin, int(size), root, note)


def verify(note: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Read a checkpoint that a pinned key of its own origin signed.

    Raises:
        NotPinned: of another origin than the pinned keys', or unsigned by them.
        CheckpointRefused: malformed, or falsely signed.
    """
    checkpoint = parse(note)
    open_note(note, [key for key in keys if key.name == checkpoint.origin])
    return checkpoint


def tlog_proof(index: int, hashes: Sequence[bytes], checkpoint: str) -> str:
    """Write an inclusion proof with its checkpoint as one C2SP tlog-proof file."""
    lines = [PROOF_HEADER, f"index {index}", *(base64.b64encode(step).decode("ascii") for step in hashes)]
    return "\n".join(lines) + "\n\n" + checkpoint


def parse_tlog_proof(text: str) -> TlogProof:
    """Split a tlog-proof; an `extra` line is read over.

    Raises:
        CheckpointRefused: not a tlog-proof.
    """
    if len(text) > MAX_NOTE_BYTES:
        raise CheckpointRefused("the proof is larger than 64 KiB")
    head, separator, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or lines.pop(0) != PROOF_HEADER or not lines:
        raise CheckpointRefused("the file is not a tlog-proof")
    if lines[0].startswith("extra "):
        lines.pop(0)
    label, _, number = (lines.pop(0) if lines else "").partition(" ")
    if label != "index" or not _DECIMAL.fullmatch(number) or len(lines) > MAX_PROOF_HASHES:
        raise CheckpointRefused("the proof's index or length is malformed")
    hashes = tuple(_base64(line) for line in lines)
    if not all(len(step) == HASH_BYTES for step in hashes):
        raise CheckpointRefused("a hash of the proof is malformed")
    return TlogProof(int(number), hashes, checkpoint)


def verify_tlog_proof(text: str, entry: bytes, keys: Sequence[VerifierKey]) -> tuple[int, Checkpoint]:
    """Check that an entry stands in a log under a checkpoint that a pinned key signed.

    Args:
        text: the tlog-proof.
        entry: the raw entry, SHA-256 of the stored credential.
        keys: the pinned log keys.

    Returns:
        The entry's index and the checkpoint.

    Raises:
        NotPinned: the checkpoint is not signed by a pinned key.
        CheckpointRefused: malformed, another entry's proof, or a wrong root.
    """
    proof = parse_tlog_proof(text)
    checkpoint = verify(proof.checkpoint, keys)
    if not verify_inclusion(entry, proof.index, checkpoint.size, proof.hashes, checkpoint.root):
        raise CheckpointRefused("the proof does not lead from this entry to the checkpoint's root")
    return proof.index, checkpoint


def _base64(text: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CheckpointRefused("a base64 text is malformed") from None
    if base64.b64encode(decoded).decode("ascii") != text:
        raise CheckpointRefused("a base64 text is not canonical")
    return decoded


def _sound_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CheckpointRefused("an origin holds no white space and no plus sign")
    return name
