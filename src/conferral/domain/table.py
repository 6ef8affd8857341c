# SPDX-License-Identifier: Apache-2.0
"""A table as people send it: a CSV file in, header and numbered rows out, one row at a time.

What is guessed here (encoding, delimiter) is said. A cell is never changed. Nothing grows with the file: a
record has a limit, and rows are handed on as they are read. This room knows nothing of credentials.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Final, TextIO

from conferral.domain import text_file
from conferral.domain.text_file import WINDOWS_1252, NotText

MAX_ROWS: Final = 100_000  # more than that is several batches
MAX_COLUMNS: Final = 200
MAX_CELL: Final = 100_000  # a longer cell is a quote that was never closed
MAX_RECORD: Final = 1_000_000  # characters of one row with all its lines
DELIMITERS: Final = (",", ";", "\t")
# The column of a file of rows to mend. It is left out when the mended file is read again.
PROBLEM_COLUMN: Final = "what is wrong (Conferral)"
_SNIFFED: Final = 1 << 16  # characters that tell the delimiter
_SNIFFED_ROWS: Final = 20  # enough to tell a delimiter from a comma in a name
_SHOWN_COLUMNS: Final = 20
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_GUARDED: Final = re.compile(r"'+[=+\-@\t\r]")
_DELIMITER_LINE: Final = re.compile(r"sep=(.)\r?\n")  # Excel's own hint, as a first line


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


class Table:
    """An open CSV file.

    Attributes:
        encoding: in words: `UTF-8`, `UTF-8 (BOM)`, `UTF-16 (BOM)`, `Windows-1252 (guessed)`.
        delimiter: one of `DELIMITERS`.
        header: the names of the columns, without outer blanks.
        is_mended: whether it is a file of rows to mend that we wrote, see `PROBLEM_COLUMN`.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        """Recognise the encoding and the delimiter, and read the header.

        Args:
            stream: seekable; it stays open and the caller's.

        Raises:
            TableRefused: empty, too large, undecodable, without header.
        """
        self._stream = stream
        try:
            self._encoding = text_file.recognise(stream)
        except NotText as refused:
            code = "body_too_large" if refused.is_too_large else "csv_unreadable"
            raise TableRefused(code, str(refused)) from None
        self.encoding = self._encoding.words
        with self._text() as text:
            head = text.read(_SNIFFED)
        if not head.strip():
            raise TableRefused("csv_unreadable", "the file is empty")
        hint = _DELIMITER_LINE.match(head)
        self._has_hint = hint is not None and hint[1] in DELIMITERS
        self.delimiter = hint[1] if hint is not None and self._has_hint else sniff_delimiter(head)
        with contextlib.closing(self._records()) as records:
            header = _header(next(records, []))
        self._problems = [
            place for place, name in enumerate(header) if name.casefold() == PROBLEM_COLUMN.casefold()
        ]
        self.is_mended = bool(self._problems)
        kept = self._without_problems(header)
        self.header = tuple(map(unguarded, kept)) if self.is_mended else kept

    @property
    def is_guessed(self) -> bool:
        """Whether the encoding was guessed, so that accents deserve a look."""
        return self._encoding == WINDOWS_1252

    @property
    def delimiter_name(self) -> str:
        """The delimiter as a person can read it."""
        return "tab" if self.delimiter == "\t" else f"'{self.delimiter}'"

    def rows(self, *, most: int = MAX_ROWS) -> Iterator[Row]:
        """Yield the rows that are not blank; blank ones count, as in a spreadsheet.

        Raises:
            TableRefused: `too_many_rows` beyond `most`; a row that cannot be read.
        """
        yielded = 0
        with contextlib.closing(self._records()) as records:
            next(records, None)
            for number, record in enumerate(records, start=1):
                if len(record) > MAX_COLUMNS:
                    raise TableRefused("csv_unreadable", f"row {number} has more than {MAX_COLUMNS} columns")
                row = Row(number, self._without_problems(record))
                if row.is_blank:
                    continue
                yielded += 1
                if yielded > most:
                    raise TableRefused("too_many_rows", f"more than {most:,} rows; split the file")
                yield Row(number, tuple(map(unguarded, row.cells))) if self.is_mended else row

    def _without_problems(self, record: Sequence[str]) -> tuple[str, ...]:
        if not self._problems:
            return tuple(record)
        return tuple(cell for place, cell in enumerate(record) if place not in self._problems)

    @contextlib.contextmanager
    def _text(self) -> Iterator[TextIO]:
        self._stream.seek(0)
        text = io.TextIOWrapper(self._stream, encoding=self._encoding.codec, newline="")
        try:
            yield text
        except UnicodeDecodeError:
            raise TableRefused("csv_unreadable", "the file was changed while it was read") from None
        finally:
            # Otherwise the stream would be closed with the wrapper, and it is not ours.
            text.detach()

    def _records(self) -> Generator[list[str]]:
        with self._text() as text:
            if self._has_hint:
                text.readline(MAX_RECORD)
            yield from _records(text, self.delimiter)


def sniff_delimiter(head: str) -> str:
    """Return the delimiter that gives the header most columns and the first rows just as many."""

    def evidence(delimiter: str) -> tuple[int, int]:
        found: list[list[str]] = []
        with contextlib.suppress(TableRefused):  # the reading itself will say so
            found.extend(islice(_records(io.StringIO(head, newline=""), delimiter), _SNIFFED_ROWS))
        width = len(found[0]) if found else 0
        return (width if width > 1 else 0, sum(len(record) == width for record in found))

    return max(DELIMITERS, key=evidence)


class _Lines:
    """The lines of a file, handed to the CSV reader; no record may take more than its share."""

    def __init__(self, text: TextIO, delimiter: str) -> None:
        self._text = text
        self._delimiter = delimiter
        self._left = MAX_RECORD
        self.number = 0

    def begin_record(self) -> None:
        self._left = MAX_RECORD

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._left -= len(line)
        if self._left < 0:
            if line.count(self._delimiter) > MAX_COLUMNS:
                raise TableRefused(
                    "csv_unreadable", f"line {self.number} has more than {MAX_COLUMNS} columns"
                )
            raise TableRefused(
                "csv_unreadable",
                f"line {self.number} does not end within {MAX_RECORD:,} characters: shorten its cells, or "
                "look for a quotation mark that is not closed",
            )
        return line


def _records(text: TextIO, delimiter: str) -> Iterator[list[str]]:
    lines = _Lines(text, delimiter)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        began = lines.number + 1
        lines.begin_record()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _broken(began, str(error)) from None
        if any(len(cell) > MAX_CELL for cell in record):
            raise _broken(began, _TOO_LONG)
        yield record


_TOO_LONG: Final = "field larger than field limit"  # as the csv module says it


def _broken(line: int, reason: str) -> TableRefused:
    if reason.startswith(_TOO_LONG):
        says = (
            f"a cell that begins in line {line} has more than {MAX_CELL:,} characters: shorten it, or close "
            "its quotation mark"
        )
    elif "end of data" in reason:
        says = f'the quotation mark that line {line} opens is never closed; close it, or double it ("")'
    else:
        says = (
            f"from line {line} on the file cannot be read: text follows a closing quotation mark; inside "
            'quotes a quotation mark is doubled ("")'
        )
    return TableRefused("csv_unreadable", says)


def _header(record: Sequence[str]) -> tuple[str, ...]:
    header = tuple(cell.strip() for cell in record)
    while header and not header[-1]:
        header = header[:-1]  # spreadsheets end lines with empty columns
    if not header:
        raise TableRefused("csv_unreadable", "the first row is empty; it has to name the columns")
    if len(header) > MAX_COLUMNS + 1:  # one more in a file of rows to mend
        raise TableRefused("csv_unreadable", f"the header has more than {MAX_COLUMNS} columns")
    seen: dict[str, int] = {}
    for position, name in enumerate(header, start=1):
        known = seen.setdefault(name.casefold(), position)
        if name and known != position:
            detail = f'columns {known} and {position} are both named "{shown(name)}"; rename one of them'
            raise TableRefused("csv_unreadable", detail)
        if any(ord(sign) < ord(" ") and not sign.isspace() for sign in name):
            detail = f'the name of column {position} holds a control character: "{shown(name)}"; remove it'
            raise TableRefused("csv_unreadable", detail)
    if any("@" in name and "." in name for name in header):
        detail = "the first row holds an e-mail address, so it names no columns; put a header above it"
        raise TableRefused("csv_unreadable", detail)
    return header


def shown(name: str) -> str:
    """Return a column's name for a message: one line, visible, not too long.

    >>> shown("E-mail" + chr(27) + "[2J")
    'E-mail?[2J'
    """
    return "".join(sign if sign.isprintable() else "?" for sign in name[:_SHOWN_CHARACTERS])


_SHOWN_CHARACTERS: Final = 40


def looks_like_formula(cell: str) -> bool:
    """Tell whether a spreadsheet would execute this cell.

    >>> looks_like_formula("=1+1"), looks_like_formula("O'Connor")
    (True, False)
    """
    return cell.startswith(_FORMULA_STARTS)


def defused(cell: str) -> str:
    """Return a cell as it is exported: what a spreadsheet would execute gets an apostrophe in front."""
    return f"'{cell}" if looks_like_formula(cell) else cell


def guarded(cell: str) -> str:
    """Return a cell as it is written into a file that comes back to us; `unguarded` is its inverse.

    >>> [unguarded(guarded(cell)) for cell in ("=1+1", "'=1+1", "O'Connor")]
    ['=1+1', "'=1+1", "O'Connor"]
    """
    return f"'{cell}" if looks_like_formula(cell) or _GUARDED.match(cell) else cell


def unguarded(cell: str) -> str:
    """Take off the apostrophe that `guarded` put in front."""
    return cell[1:] if _GUARDED.match(cell) else cell


def csv_line(cells: Iterable[str], delimiter: str) -> str:
    """Return one line of a CSV file, with its line end."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerow(list(cells))
    return text.getvalue()


def write_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, delimiter: str) -> bytes:
    """Return a CSV file that Excel opens as it was meant: UTF-8 with a mark, formulas defused."""
    lines = [csv_line(map(defused, row), delimiter) for row in (header, *rows)]
    return codecs.BOM_UTF8 + "".join(lines).encode()


def column_list(header: Sequence[str]) -> str:
    """Return the columns' names for a message, not too many."""
    named = [f'"{shown(name)}"' for name in header if name][:_SHOWN_COLUMNS]
    return ", ".join(named) + (", …" if len(header) > _SHOWN_COLUMNS else "")
