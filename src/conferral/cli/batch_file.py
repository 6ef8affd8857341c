# SPDX-License-Identifier: Apache-2.0
"""The file of `conferral batch issue`: opened in pieces, checked, reported; its bad rows kept to be mended.

A file of rows to mend is never written over another one: somebody may have begun to mend that.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

from conferral.cli import showing
from conferral.domain.problems import Problem
from conferral.domain.row_finding import quoted
from conferral.domain.text_file import MAX_BYTES, PIECE
from conferral.services.reading_csv import Reading

SHOWN_FINDINGS: Final = 50  # more are in the file of rows to mend
MOST_FILES: Final = 99  # of rows to mend, beside one original
_IN_MEMORY: Final = 1 << 20  # rows to mend beyond it wait in a temporary file
_OWN_NAME: Final = re.compile(r"\.errors(-\d+)?$")
_PRIVATE: Final = 0o600  # names and addresses of people


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """Yield a file's bytes, seekable; what is no regular file (a pipe) is copied first, up to the limit.

    Raises:
        Problem: `not_found`, `csv_unreadable`, `body_too_large`.
    """
    with ExitStack() as stack:
        try:
            stream = _open(file, stack)
        except FileNotFoundError:
            raise Problem("not_found", f"there is no file {file}") from None
        except OSError as error:
            raise Problem("csv_unreadable", f"{file} cannot be read: {error.strerror}") from None
        yield stream


@contextmanager
def to_mend() -> Iterator[IO[bytes]]:
    """Yield where the bad rows are collected."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as rows:
        yield rows


def keep(file: Path, rows: IO[bytes]) -> Path | None:
    """Keep the bad rows beside their file and return where; None if there are none or no room.

    A folder that cannot be written is no reason to stop: the rows are still in the original.
    """
    if rows.seek(0, os.SEEK_END) == 0:
        return None
    for path in _names(file):
        rows.seek(0)
        try:
            if path.exists():
                if _is_equal(path, rows):
                    return path
                continue
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb") as written:
                shutil.copyfileobj(rows, written)
        except OSError as error:
            showing.remark(f"the rows with errors could not be written to {path}: {error.strerror}")
            return None
        return path
    showing.remark(f"there are {MOST_FILES} files of rows to mend beside {file}; remove old ones")
    return None


def report(file: Path, reading: Reading, kept: Path | None, *, as_json: bool) -> None:
    """Say what was read, what will be issued, and everything that is wrong."""
    table = reading.table
    if as_json:
        for one in reading.findings:
            showing.emit({"event": "finding", **one.as_wire()})
        showing.emit(
            {
                "event": "checked", "file": str(file), "encoding": table.encoding,
                "delimiter": table.delimiter, "rows": reading.total, "ready": len(reading.rows),
                "rows_with_errors": reading.bad_rows, "issued_before": reading.left_out,
                "errors": reading.error_count, "warnings": reading.warning_count,
                "errors_file": str(kept) if kept else None,
                "columns": dict(reading.columns), "ignored_columns": reading.ignored_columns,
            }
        )  # fmt: skip
        return
    showing.say(_headline(file, reading, kept))
    mapped = ", ".join(f"{quoted(column)} → {target}" for target, column in reading.columns.items())
    showing.say(f"  {mapped}")
    if reading.ignored_columns:
        showing.say(f"  ignored: {', '.join(map(quoted, reading.ignored_columns))}")
    if reading.bad_rows or reading.left_out:
        showing.say(f"  {_sum(reading)}")
    if table.is_guessed:
        showing.say("  The file is not UTF-8; it was read as Windows-1252. Look at the accents.")
    for one in reading.findings[:SHOWN_FINDINGS]:
        showing.say(showing.painted(str(one), showing.RED if one.is_error else showing.YELLOW))
    more = reading.error_count + reading.warning_count - SHOWN_FINDINGS
    if more > 0:
        where = f"; all errors stand in {kept}" if kept else ""
        showing.say(f"… and {more:,} more{where}")
    if kept:
        showing.say(f"Mend the rows in {kept} and give that file to the same command.")


def rows_of(count: int) -> str:
    """Return a number of rows in words."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def _headline(file: Path, reading: Reading, kept: Path | None) -> str:
    table = reading.table
    good = showing.painted("✓", showing.GREEN)
    line = f"{good} {file.name}  {table.encoding}, {table.delimiter_name}  {rows_of(reading.total)}"
    if reading.error_count:
        see = f" (see {kept})" if kept else ""
        errors = f"✗ {reading.error_count:,} error{'s' if reading.error_count > 1 else ''}"
        line += f"   {showing.painted(errors, showing.RED)}{see}"
    if reading.rows:
        return f"{line}  → issuing {len(reading.rows):,}"
    if not reading.total:
        return f"{line}  → nothing to issue: there is a header and no row below it"
    if reading.left_out == reading.total:
        return f"{line}  → nothing to issue: all were issued before"
    return f"{line}  → nothing to issue"


def _sum(reading: Reading) -> str:
    parts = [f"{len(reading.rows):,} to issue", f"{len(reading.bad_rows):,} to mend"]
    if reading.left_out:
        parts.append(f"{reading.left_out:,} issued before")
    return f"{rows_of(reading.total)} = {' + '.join(parts)}"


def _names(file: Path) -> Iterator[Path]:
    stem, suffix = _OWN_NAME.sub("", file.stem), file.suffix or ".csv"
    yield file.with_name(f"{stem}.errors{suffix}")
    for number in range(2, MOST_FILES + 1):
        yield file.with_name(f"{stem}.errors-{number}{suffix}")


def _is_equal(path: Path, rows: IO[bytes]) -> bool:
    with path.open("rb") as other:
        while True:
            mine, theirs = rows.read(PIECE), other.read(PIECE)
            if mine != theirs:
                return False
            if not mine:
                return True


def _open(file: Path, stack: ExitStack) -> IO[bytes]:
    stream = stack.enter_context(file.open("rb"))
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode):
        copy = stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 -- the stack closes it
        _copy(stream, copy, file)
        return copy
    if status.st_size > MAX_BYTES:
        raise _too_large(file)
    return stream


def _copy(stream: IO[bytes], copy: IO[bytes], file: Path) -> None:
    size = 0
    while piece := stream.read(PIECE):
        size += len(piece)
        if size > MAX_BYTES:
            raise _too_large(file)
        copy.write(piece)


def _too_large(file: Path) -> Problem:
    return Problem("body_too_large", f"{file} has more than {MAX_BYTES // 1_000_000} MB; split it")
