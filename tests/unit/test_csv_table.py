# SPDX-License-Identifier: Apache-2.0
"""Files as people save them: encodings, delimiters, quotes, and what cannot be read."""

from __future__ import annotations

import codecs
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conferral.domain import table
from conferral.domain.table import Table, TableRefused, write_table
from conferral.domain.text_file import MAX_BYTES

TEXT = "Name;E-Mail\nZoë Müller;zoe@alumni.example\n"


def read_table(content: bytes) -> Table:
    """Return an open table."""
    return Table(io.BytesIO(content))


def refused(content: bytes) -> TableRefused:
    """Return why a file is refused."""
    with pytest.raises(TableRefused) as caught:
        list(read_table(content).rows())
    return caught.value


def rows(found: Table) -> list[tuple[str, ...]]:
    """Return the cells of every row."""
    return [row.cells for row in found.rows()]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode(), "UTF-8"),
        (codecs.BOM_UTF8 + TEXT.encode(), "UTF-8 (BOM)"),
        (TEXT.encode("utf-16"), "UTF-16 (BOM)"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16 (BOM)"),
        (TEXT.encode("cp1252"), "Windows-1252 (guessed)"),
    ],
)
def test_a_name_is_read_right_in_every_encoding_that_excel_writes(content: bytes, encoding: str) -> None:
    """Accents survive, the byte order mark is no part of the first header, and a guess is said."""
    found = read_table(content)
    assert found.encoding == encoding
    assert found.header == ("Name", "E-Mail")
    assert rows(found) == [("Zoë Müller", "zoe@alumni.example")]
    assert found.is_guessed == (encoding == "Windows-1252 (guessed)")


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2\n", ";"),
        ("a\tb\nx, y\tz; w\n", "\t"),
        ('"Name, full";Mail\n"Doe, J";x\n', ";"),
        ("sep=;\na;b\n1;2\n", ";"),
        ("only\nx\n", ","),
    ],
)
def test_the_delimiter_is_the_one_that_fits_the_header(text: str, delimiter: str) -> None:
    """A comma in a name or a price does not split a row."""
    found = read_table(text.encode())
    assert found.delimiter == delimiter
    assert {len(row.cells) for row in found.rows()} == {len(found.header)}


def test_rows_are_numbered_as_a_spreadsheet_does_when_some_are_blank_or_hold_line_breaks() -> None:
    """Row 1 is the first below the header; blank rows count and are left out."""
    found = read_table(b'a,b\r\n1,"two\r\nlines"\r\n,\r\n\r\n4,x\r\n')
    assert [row.number for row in found.rows()] == [1, 4]
    assert next(iter(found.rows())).cells == ("1", "two\r\nlines")


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "csv_unreadable", "empty"),
        (b"PK\x03\x04\x14\0", "csv_unreadable", "save the sheet as CSV"),
        (b"%PDF-1.7\n", "csv_unreadable", "but a PDF"),
        (b"\x1f\x8b\x08", "csv_unreadable", "gzip"),
        (b"<!DOCTYPE html><html>", "csv_unreadable", "a web page; download the file again"),
        (b'[{"name": "Ada"}]', "csv_unreadable", "but JSON"),
        ("a,b\n1,2\n".encode("utf-32"), "csv_unreadable", "UTF-32"),
        (b"Full\0name,b\n1,2\n", "csv_unreadable", "column 1 holds a control character"),
        (b"\xef\xbb\xbf \n", "csv_unreadable", "empty"),
        (b",,\n1,2,3\n", "csv_unreadable", "first row is empty"),
        (b"Name,E-mail,name\n", "csv_unreadable", "columns 1 and 3"),
        (b"Ada,ada@alumni.example\nBob,bob@alumni.example\n", "csv_unreadable", "put a header above"),
        (b'a,b\n1,2\n"x,y\n3,4\n', "csv_unreadable", "that line 3 opens is never closed"),
        (b'a,b\n"x"y,2\n', "csv_unreadable", "from line 2 on"),
        (b"a,b\nsnow\x81man,1\n", "csv_unreadable", "line 2 holds the byte 0x81"),
        ("Name,Mail\nx,y\n".encode("utf-16-le"), "csv_unreadable", "UTF-16 without"),
        (codecs.BOM_UTF16_LE + b"a\0b", "csv_unreadable", "cut off"),
        (b"a,b\n" + b"x" * (table.MAX_CELL + 1) + b",1\n", "csv_unreadable", "line 2"),
        (b"a," * (table.MAX_COLUMNS + 1) + b"\n", "csv_unreadable", "columns"),
        (b"a," * 1_000_000 + b"\n", "csv_unreadable", "line 1 has more than 200 columns"),
        (b"a,b\n" + b"x" * table.MAX_RECORD + b",1\n", "csv_unreadable", "line 2 does not end"),
        (b"a,b\n" + b'"\n",' * 400_000, "csv_unreadable", "does not end"),
        (b"a\n" + b"1\n" * (table.MAX_ROWS + 1), "too_many_rows", "split"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_is_refused_with_the_place_when_it_cannot_be_read(
    content: bytes, code: str, says: str
) -> None:
    """What is wrong is said with its line, and nothing of such a file is used."""
    refusal = refused(content)
    assert refusal.code == code
    assert says in refusal.detail


def test_a_file_beyond_the_limit_is_refused_before_it_is_decoded() -> None:
    """Fifty megabytes are a table; more is something else."""
    assert refused(b"x" * (MAX_BYTES + 1)).code == "body_too_large"


def test_a_nul_in_a_cell_is_kept_for_the_check_of_the_row() -> None:
    """One broken cell is one bad row, never a bad file."""
    assert rows(read_table(b"a,b\nx\0y,1\nz,2\n")) == [("x\0y", "1"), ("z", "2")]


CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\ufeff"), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=8), st.sampled_from(table.DELIMITERS))
def test_what_is_exported_is_read_back_when_apostrophes_are_taken_off(
    content: list[tuple[str, str]], delimiter: str
) -> None:
    """Only cells that a spreadsheet would execute change, and only by one apostrophe."""
    found = read_table(write_table(("first", "second"), content, delimiter=delimiter))
    kept = [row for row in content if any(cell.strip() for cell in row)]
    assert rows(found) == [tuple(table.defused(cell) for cell in row) for row in kept]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", '=HYPERLINK("http://x","y")'])
def test_a_formula_is_defused_in_exports(cell: str) -> None:
    """No cell of ours runs in anybody's spreadsheet."""
    assert table.looks_like_formula(cell)
    written = read_table(write_table(("a", "b"), [(cell, "1")], delimiter=","))
    assert next(written.rows()).cells[0] == "'" + cell


@given(st.lists(st.tuples(CELLS, CELLS), max_size=8), st.sampled_from(table.DELIMITERS))
def test_rows_to_mend_come_back_as_they_were_typed(content: list[tuple[str, str]], delimiter: str) -> None:
    """The column of reasons is dropped and every apostrophe of ours taken off, whatever the cells are."""
    lines = [("why", *map(table.guarded, row)) for row in content]
    header = (table.PROBLEM_COLUMN, "first", "second")
    text = "".join(table.csv_line(cells, delimiter) for cells in (header, *lines))
    found = read_table(codecs.BOM_UTF8 + text.encode())
    assert found.is_mended
    assert found.header == ("first", "second")
    assert rows(found) == [row for row in content if any(cell.strip() for cell in row)]


def test_the_stream_stays_open_and_can_be_read_again() -> None:
    """Whoever opened the file closes it; a second look sees the same."""
    stream = io.BytesIO(b"a,b\n1,2\n")
    found = Table(stream)
    assert list(found.rows()) == list(found.rows())
    assert not stream.closed
