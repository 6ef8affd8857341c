# SPDX-License-Identifier: Apache-2.0
"""The bytes of a text file: which encoding they are in, or what else the file is.

Excel writes three encodings and says none of them; what is guessed here is said, so that nobody's name is
silently wrong. A file is read in pieces: memory does not grow with it. This room knows nothing of tables.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

MAX_BYTES: Final = 50_000_000  # the API's bound for an upload
PIECE: Final = 1 << 16  # bytes read at once
# A text of Latin letters in UTF-16 is every other byte zero; a stray NUL is not.
_UTF16_ZEROS: Final = 0.2
_UNDEFINED_IN_1252: Final = b"\x81\x8d\x8f\x90\x9d"
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32_MARKS: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_SAVE: Final = "open it in your spreadsheet program and save the sheet as CSV UTF-8"
_PACKED: Final = "unpack it first, then send the CSV file inside"
_AGAIN: Final = "download the file again, signed in, and choose CSV"
# How files begin that people give a name ending in .csv, and what to do about it.
_OTHERS: Final = (
    (b"PK\x03\x04", "a workbook (XLSX, ODS) or a zip archive", _SAVE),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (XLS)", _SAVE),
    (b"%PDF-", "a PDF", "ask for the table that it was made of, as CSV UTF-8"),
    (b"\x1f\x8b", "a gzip archive", _PACKED),
    (b"7z\xbc\xaf", "a 7-zip archive", _PACKED),
    (b"\x89PNG", "a picture", "send the table itself, as CSV UTF-8"),
    (b"\xff\xd8\xff", "a picture", "send the table itself, as CSV UTF-8"),
    (b"{\\rtf", "a word processor's document", "copy the table into a spreadsheet and save it as CSV UTF-8"),
    (b"<!", "a web page", _AGAIN),
    (b"<html", "a web page", _AGAIN),
    (b"<?xml", "XML", _AGAIN),
    (b"[{", "JSON", "post it to /v1/batches, or save it as CSV UTF-8"),
    (b'{"', "JSON", "post it to /v1/batches, or save it as CSV UTF-8"),
)


class NotText(ValueError):
    """The file is no text that can be read; the message says what it is and what to do.

    Attributes:
        is_too_large: whether its size alone is the reason.
    """

    def __init__(self, detail: str, *, is_too_large: bool = False) -> None:
        self.is_too_large = is_too_large
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding: in words for people, and Python's name for it."""

    words: str
    codec: str


UTF_8: Final = Encoding("UTF-8", "utf-8")
UTF_8_BOM: Final = Encoding("UTF-8 (BOM)", "utf-8-sig")
UTF_16: Final = Encoding("UTF-16 (BOM)", "utf-16")
WINDOWS_1252: Final = Encoding("Windows-1252 (guessed)", "cp1252")


def recognise(stream: IO[bytes]) -> Encoding:
    """Return the encoding: by byte order mark, else UTF-8, else Windows-1252.

    The stream is read from its beginning to its end, once. What is returned decodes all of it.

    Raises:
        NotText: empty, too large, undecodable, or a file of another kind.
    """
    stream.seek(0)
    head = stream.read(PIECE)
    if not head:
        raise NotText("the file is empty")
    if head.startswith(_UTF32_MARKS):
        raise NotText("the file is UTF-32; save it as CSV UTF-8")
    begins = head.removeprefix(codecs.BOM_UTF8).lstrip()
    for beginning, kind, cure in _OTHERS:
        if begins.startswith(beginning):
            raise NotText(f"this is not a CSV file but {kind}; {cure}")
    stream.seek(0)
    if head.startswith(_UTF16_MARKS):
        return _utf_16(stream)
    return _utf_8(stream) or _windows(stream)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    read = 0
    while piece := stream.read(PIECE):
        read += len(piece)
        if read > MAX_BYTES:
            raise NotText(f"the file has more than {MAX_BYTES // 1_000_000} MB; split it", is_too_large=True)
        yield piece


def _utf_16(stream: IO[bytes]) -> Encoding:
    decoder = codecs.getincrementaldecoder("utf-16")()
    try:
        for piece in _pieces(stream):
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise NotText("the file begins as UTF-16 and is cut off or damaged; save it as CSV UTF-8") from None
    return UTF_16


def _utf_8(stream: IO[bytes]) -> Encoding | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_marked, zeros, read, is_valid = False, 0, 0, True
    for piece in _pieces(stream):
        is_marked = is_marked or (read == 0 and piece.startswith(codecs.BOM_UTF8))
        read, zeros = read + len(piece), zeros + piece.count(0)
        try:
            is_valid = is_valid and decoder.decode(piece) is not None
        except UnicodeDecodeError:
            is_valid = False
    if zeros > _UTF16_ZEROS * read:
        raise NotText("the file looks like UTF-16 without a byte order mark; save it as CSV UTF-8")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        is_valid = False
    if not is_valid:
        return None
    return UTF_8_BOM if is_marked else UTF_8


def _windows(stream: IO[bytes]) -> Encoding:
    """Every byte but five means something there, so it is asked last, and said to be a guess."""
    stream.seek(0)
    line = 1
    for piece in _pieces(stream):
        found = min((place for place in map(piece.find, _as_bytes()) if place >= 0), default=None)
        if found is not None:
            line += piece.count(b"\n", 0, found)
            raise NotText(
                f"line {line} holds the byte 0x{piece[found]:02X}, which is neither UTF-8 nor Windows-1252; "
                "save the file as CSV UTF-8"
            )
        line += piece.count(b"\n")
    return WINDOWS_1252


def _as_bytes() -> list[bytes]:
    return [bytes([undefined]) for undefined in _UNDEFINED_IN_1252]
