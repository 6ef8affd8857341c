# SPDX-License-Identifier: Apache-2.0
"""A table as people send it: bytes of a CSV file in, header and numbered rows out.

Excel writes three encodings and two delimiters, and says neither; what is guessed here is said, so that
nobody's name is silently wrong. A cell is never changed. This room knows nothing of credentials.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

MAX_BYTES: Final = 50_000_000  # the API's bound for an upload
MAX_ROWS: Final = 100_000  # more than that is several batches
MAX_COLUMNS: Final = 200
MAX_CELL: Final = 100_000  # a longer cell is a quote that was never closed
DELIMITERS: Final = (",", ";", "\t")
_SNIFFED_ROWS: Final = 20  # enough to tell a delimiter from a comma in a name
_SHOWN_COLUMNS: Final = 20
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_DELIMITER_LINE: Final = re.compile(r"sep=(.)\r?\n")  # Excel's own hint, as a first line
_WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # XLSX and ODS are zips; XLS is an OLE file
# A text of Latin letters in UTF-16 is every other byte zero; a stray NUL is not.
_UTF16_ZEROS: Final = 0.2


class TableRefused(ValueError):
    """The file cannot be read as a table.

    Attributes:
        code: `csv_unreadable`, `too_many_rows` or `body_too_large`.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Row:
    """One data row: its number (1 is the first below the header) and its cells, as they were typed."""

    number: int
    cells: tuple[str, ...]

    @property
    def is_blank(self) -> bool:
        """Whether nothing was typed; spreadsheets leave such rows behind."""
        return not any(cell.strip() for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Table:
    """A file that was read.

    Attributes:
        encoding: in words: `UTF-8`, `UTF-8 (BOM)`, `UTF-16 (BOM)`, `Windows-1252 (guessed)`.
        delimiter: one of `DELIMITERS`.
        header: the names of the columns, without outer blanks.
        rows: without blank ones; their numbers count those, too, as a spreadsheet does.
    """

    encoding: str
    delimiter: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def is_guessed(self) -> bool:
        """Whether the encoding was guessed, so that accents deserve a look."""
        return self.encoding == WINDOWS_1252

    @property
    def delimiter_name(self) -> str:
        """The delimiter as a person can read it."""
        return "tab" if self.delimiter == "\t" else f"'{self.delimiter}'"


UTF_8: Final = "UTF-8"
UTF_8_BOM: Final = "UTF-8 (BOM)"
UTF_16: Final = "UTF-16 (BOM)"
WINDOWS_1252: Final = "Windows-1252 (guessed)"


def read_table(content: bytes) -> Table:
    """Read a CSV file.

    Raises:
        TableRefused: empty, too large, undecodable, without header, or with a quote that does not close.
    """
    if len(content) > MAX_BYTES:
        raise TableRefused("body_too_large", f"the file has more than {MAX_BYTES // 1_000_000} MB")
    if content.startswith(_WORKBOOKS):
        raise TableRefused("csv_unreadable", "this is a workbook; save the sheet as CSV UTF-8")
    text, encoding = decode(content)
    if not text.strip():
        raise TableRefused("csv_unreadable", "the file is empty")
    hint = _DELIMITER_LINE.match(text)
    if hint is not None and hint[1] in DELIMITERS:
        delimiter, text = hint[1], text[hint.end() :]
    else:
        delimiter = sniff_delimiter(text)
    records = _records(text, delimiter)
    header = _header(next(records, []))
    rows = []
    for number, record in enumerate(records, start=1):
        if len(record) > MAX_COLUMNS:
            raise TableRefused("csv_unreadable", f"row {number} has more than {MAX_COLUMNS} columns")
        row = Row(number, tuple(record))
        if row.is_blank:
            continue
        rows.append(row)
        if len(rows) > MAX_ROWS:
            raise TableRefused("too_many_rows", f"more than {MAX_ROWS:,} rows; split the file")
    return Table(encoding, delimiter, header, tuple(rows))


def decode(content: bytes) -> tuple[str, str]:
    """Return the text and its encoding in words: by byte order mark, else UTF-8, else Windows-1252.

    >>> decode("Zoë".encode("cp1252"))
    ('Zoë', 'Windows-1252 (guessed)')
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), UTF_16
        except UnicodeDecodeError:
            raise TableRefused("csv_unreadable", "the file begins as UTF-16 and is cut off") from None
    if content.count(0) > _UTF16_ZEROS * len(content):
        detail = "the file looks like UTF-16 without a byte order mark; save it as CSV UTF-8"
        raise TableRefused("csv_unreadable", detail)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _decode_windows(content), WINDOWS_1252
    return text, UTF_8_BOM if content.startswith(codecs.BOM_UTF8) else UTF_8


def _decode_windows(content: bytes) -> str:
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        detail = (
            f"line {line} holds the byte 0x{content[error.start]:02X}, which is neither UTF-8 nor "
            "Windows-1252; save the file as CSV UTF-8"
        )
        raise TableRefused("csv_unreadable", detail) from None


def sniff_delimiter(text: str) -> str:
    """Return the delimiter that gives the header most columns and the first rows just as many."""

    def evidence(delimiter: str) -> tuple[int, int]:
        found: list[list[str]] = []
        with contextlib.suppress(TableRefused):  # the reading itself will say so
            found.extend(islice(_records(text, delimiter), _SNIFFED_ROWS))
        width = len(found[0]) if found else 0
        return (width if width > 1 else 0, sum(len(record) == width for record in found))

    return max(DELIMITERS, key=evidence)


def _records(text: str, delimiter: str) -> Iterator[list[str]]:
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        began = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise _broken(began) from None
        if any(len(cell) > MAX_CELL for cell in record):
            raise _broken(began)
        yield record


def _broken(line: int) -> TableRefused:
    detail = (
        f"from line {line} on the file cannot be read: a quotation mark is not closed, or text follows "
        'a closing one; inside quotes a quotation mark is doubled ("")'
    )
    return TableRefused("csv_unreadable", detail)


def _header(record: Sequence[str]) -> tuple[str, ...]:
    header = tuple(cell.strip() for cell in record)
    while header and not header[-1]:
        header = header[:-1]  # spreadsheets end lines with empty columns
    if not header:
        raise TableRefused("csv_unreadable", "the first row is empty; it has to name the columns")
    if len(header) > MAX_COLUMNS:
        raise TableRefused("csv_unreadable", f"the header has more than {MAX_COLUMNS} columns")
    seen: dict[str, int] = {}
    for position, name in enumerate(header, start=1):
        known = seen.setdefault(name.casefold(), position)
        if name and known != position:
            detail = f'columns {known} and {position} are both named "{name[:60]}"; rename one of them'
            raise TableRefused("csv_unreadable", detail)
    if any("@" in name and "." in name for name in header):
        detail = "the first row holds an e-mail address, so it names no columns; put a header above it"
        raise TableRefused("csv_unreadable", detail)
    return header


def looks_like_formula(cell: str) -> bool:
    """Tell whether a spreadsheet would execute this cell.

    >>> looks_like_formula("=1+1"), looks_like_formula("O'Connor")
    (True, False)
    """
    return cell.startswith(_FORMULA_STARTS)


def defused(cell: str) -> str:
    """Return a cell as it is exported: what a spreadsheet would execute gets an apostrophe in front."""
    return f"'{cell}" if looks_like_formula(cell) else cell


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, delimiter: str) -> bytes:
    """Return a CSV file that Excel opens as it was meant: UTF-8 with a mark, formulas defused."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    for row in (header, *rows):
        writer.writerow([defused(cell) for cell in row])
    return codecs.BOM_UTF8 + text.getvalue().encode()


def column_list(header: Sequence[str]) -> str:
    """Return the columns' names for a message, not too many."""
    named = [f'"{name[:40]}"' for name in header if name][:_SHOWN_COLUMNS]
    return ", ".join(named) + (", …" if len(header) > _SHOWN_COLUMNS else "")
