# SPDX-License-Identifier: Apache-2.0
"""Read a CSV file for a template: which rows can be issued, and everything that is wrong with the others.

Every row is checked by the same admission as a request to the API. All findings are told at once; good
rows never wait for bad ones, and bad ones are written out as they were typed, to be mended. Every row is
counted as one or the other. Nothing is written to the database here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import IO, Final

from conferral.adapters import design_store
from conferral.domain import column_names, row_finding, table
from conferral.domain.column_names import EMAIL, EXPIRES_ON, EXTERNAL_ID, FIELDS, ISSUED_ON, LOCALE, NAME
from conferral.domain.problems import FieldError, Problem
from conferral.domain.row_finding import RowFinding
from conferral.services import admission
from conferral.services.admission import Admitted, Wanted
from conferral.services.batching import Row
from conferral.services.external_ids import ExternalIds, Repeated, Same, Taken
from conferral.services.runtime import Caller, Runtime
from conferral.store.records import Record

MOST_FINDINGS: Final = 10_000  # kept for showing; beyond it they are only counted
_CHUNK: Final = 500  # rows whose external ids are looked up together
_DATE_TOKENS: Final = (("YYYY", "%Y"), ("MM", "%m"), ("DD", "%d"))
_POINTERS: Final = {
    "#/recipient/name": NAME,
    "#/recipient/email": EMAIL,
    "#/recipient/locale": LOCALE,
    "#/issued_on": ISSUED_ON,
    "#/expires_on": EXPIRES_ON,
    "#/external_id": EXTERNAL_ID,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a person says that a file is to be read.

    Attributes:
        mapping: `field=column` pairs; they win over what is guessed.
        date_format: `DD/MM/YYYY` and the like; ISO dates are always read.
        most_rows: a file with more is refused.
    """

    mapping: Sequence[str] = ()
    date_format: str | None = None
    most_rows: int = table.MAX_ROWS


@dataclass(slots=True)
class Reading:
    """What a file says: `total` is the rows to issue, the bad ones and those left out, together.

    Attributes:
        table: what was recognised: encoding, delimiter, header.
        columns: target → column, as mapped.
        rows: those that can be issued.
        findings: errors and warnings by row, the first `MOST_FINDINGS`.
        bad_rows: the numbers of the rows that cannot be issued.
        left_out: how many rows were issued before, with the same content.
        total: rows of the file, without blank ones.
        error_count: all errors, also those beyond `findings`.
        warning_count: all warnings.
    """

    table: table.Table
    columns: Mapping[str, str]
    rows: list[Row] = field(default_factory=list)
    findings: list[RowFinding] = field(default_factory=list)
    bad_rows: list[int] = field(default_factory=list)
    left_out: int = 0
    total: int = 0
    error_count: int = 0
    warning_count: int = 0

    @property
    def errors(self) -> list[RowFinding]:
        """What keeps rows from being issued."""
        return [one for one in self.findings if one.is_error]

    @property
    def ignored_columns(self) -> list[str]:
        """The columns that mean nothing to the template."""
        used = set(self.columns.values())
        return [name for name in self.table.header if name and name not in used]

    def note(self, findings: Iterable[RowFinding]) -> None:
        """Count findings, and keep them while there is room."""
        for one in findings:
            self.error_count += one.is_error
            self.warning_count += not one.is_error
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(one)


def read(
    rt: Runtime,
    caller: Caller,
    template: Record,
    content: IO[bytes],
    how: How = How(),
    *,
    to_mend: IO[bytes] | None = None,
) -> Reading:
    """Read and check a file.

    Args:
        rt: the runtime.
        caller: whose external ids are looked up.
        template: as `admission.find_template` returns it.
        content: the file, seekable; it is read in pieces.
        how: columns, dates, limits.
        to_mend: where the rows with errors are written, as they were typed; nothing if there are none.

    Raises:
        Problem: `csv_unreadable`, `csv_column_missing`, `too_many_rows`, `body_too_large`,
            `validation_failed` for a mapping or date format that makes no sense.
    """
    try:
        found = table.Table(content)
        fields = {one.id: one for one in design_store.fields_of(template.design)}
        columns = _columns(found, fields, how.mapping)
        reader = _Reader(template, found, columns, _Dates(how.date_format), tuple(fields.values()))
        reading = Reading(found, columns)
        checked = _Checked(reading, ExternalIds(rt, caller, template.version_id), to_mend)
        rows = found.rows(most=how.most_rows)
        while chunk := list(islice(rows, _CHUNK)):
            checked.take([(row, reader.check(rt, row), reader.findings) for row in chunk], reader)
    except table.TableRefused as refused:
        raise Problem(refused.code, refused.detail) from None
    return reading


class _Checked:
    """Sorts checked rows into those to issue, those to mend, and those that were issued before."""

    def __init__(self, reading: Reading, ids: ExternalIds, to_mend: IO[bytes] | None) -> None:
        self._reading = reading
        self._ids = ids
        self._to_mend = to_mend
        self._addresses: dict[str, int] = {}

    def take(
        self, chunk: Sequence[tuple[table.Row, Admitted | None, list[RowFinding]]], reader: _Reader
    ) -> None:
        """Take the next rows: each with what would be issued, or None, and its findings."""
        admitted = [(row.number, one) for row, one, _ in chunk if one is not None]
        standings = dict(zip([number for number, _ in admitted], self._ids.standings(admitted), strict=True))
        for row, one, findings in chunk:
            self._reading.total += 1
            said = [*findings, *self._of_standing(row, one, standings.get(row.number))]
            is_bad = any(finding.is_error for finding in said)
            if is_bad:
                self._refuse(row, said)
            elif isinstance(standings.get(row.number), Same):
                self._reading.left_out += 1
            elif one is not None:
                self._reading.rows.append(Row(row.number, reader.wanted(row)))
                said += self._repeated_address(row, one)
            self._reading.note(sorted(said, key=lambda finding: not finding.is_error))

    def _of_standing(self, row: table.Row, one: Admitted | None, standing: object) -> Iterator[RowFinding]:
        column = self._reading.columns.get(EXTERNAL_ID)
        if one is None or one.external_id is None or column is None:
            return
        if isinstance(standing, Repeated):
            yield row_finding.repeated_id(row.number, column, one.external_id, standing.number)
        elif isinstance(standing, Same):
            yield row_finding.already_issued(row.number, column, one.external_id, standing.credential_id)
        elif isinstance(standing, Taken):
            yield row_finding.taken_id(row.number, column, one.external_id, standing.credential_id)

    def _repeated_address(self, row: table.Row, one: Admitted) -> Iterator[RowFinding]:
        first = self._addresses.setdefault(one.recipient_email.casefold(), row.number)
        if first != row.number:
            column = self._reading.columns[EMAIL]
            yield row_finding.repeated_address(row.number, column, one.recipient_email, first)

    def _refuse(self, row: table.Row, said: Sequence[RowFinding]) -> None:
        """Keep a bad row: its cells as they were typed, behind one cell that says what is wrong."""
        if self._to_mend is not None:
            found = self._reading.table
            if not self._reading.bad_rows:
                header = (table.PROBLEM_COLUMN, *map(table.guarded, found.header))
                self._to_mend.write(codecs.BOM_UTF8 + table.csv_line(header, found.delimiter).encode())
            reasons = " | ".join(str(one) for one in said if one.is_error)
            cells = (reasons, *map(table.guarded, row.cells))
            self._to_mend.write(table.csv_line(cells, found.delimiter).encode())
        self._reading.bad_rows.append(row.number)


def _columns(
    found: table.Table, fields: Mapping[str, design_store.Field], mapping: Sequence[str]
) -> dict[str, str]:
    targets = column_names.targets_of(fields)
    labels = {FIELDS + name: field.label for name, field in fields.items()}
    try:
        given = column_names.named(mapping, found.header, targets)
    except column_names.ColumnUnknown as unknown:
        raise Problem("csv_column_missing", f"--map: {unknown}") from None
    guessed = column_names.guess(found.header, targets, labels)
    used = set(given.values())
    columns = {target: column for target, column in guessed.items() if column not in used} | given
    required = [FIELDS + name for name, field in fields.items() if field.required]
    missing = [name for name in (*column_names.REQUIRED_TARGETS, *required) if name not in columns]
    if missing:
        detail = (
            f"no column is recognised as {', '.join(missing)}; the file has "
            f"{table.column_list(found.header)}. Name it with --map {missing[0]}=COLUMN"
        )
        raise Problem("csv_column_missing", detail)
    return columns


class _Dates:
    """How dates are written in one file."""

    def __init__(self, date_format: str | None) -> None:
        self.hint = f"{row_finding.ISO_DATE}, or pass --date-format"
        self._pattern: str | None = None
        if date_format is None:
            return
        pattern = date_format.upper()
        self.hint = f"{pattern} or {row_finding.ISO_DATE}"
        for token, directive in _DATE_TOKENS:
            if pattern.count(token) != 1:
                detail = f'--date-format "{date_format[:40]}": write it with DD, MM and YYYY, e.g. DD.MM.YYYY'
                raise Problem("validation_failed", detail)
            pattern = pattern.replace(token, directive)
        self._pattern = pattern

    def as_iso(self, cell: str) -> str:
        """Return a date of this format as ISO; anything else unchanged, for admission to judge."""
        if self._pattern is None:
            return cell
        try:
            # Only the day is read: zones play no part.
            return datetime.strptime(cell.strip(), self._pattern).date().isoformat()  # noqa: DTZ007
        except ValueError:
            return cell


class _Reader:
    """Checks row after row; `findings` are those of the last one."""

    def __init__(
        self,
        template: Record,
        found: table.Table,
        columns: Mapping[str, str],
        dates: _Dates,
        fields: Sequence[design_store.Field],
    ) -> None:
        self.findings: list[RowFinding] = []
        self._template = template
        self._header = found.header
        self._columns = columns
        self._positions = {target: found.header.index(column) for target, column in columns.items()}
        self._dates = dates
        self._date_targets = {ISSUED_ON, EXPIRES_ON} | {
            FIELDS + field.id for field in fields if field.kind == "date"
        }

    def check(self, rt: Runtime, row: table.Row) -> Admitted | None:
        """Return what would be issued for a row, or None with its `findings`."""
        self.findings = list(self._shape(row))
        if self.findings:
            return None
        checked = admission.check(rt, self._template.design, self.wanted(row))
        if not isinstance(checked, Admitted):
            self.findings = [self._finding(row, error) for error in checked]
        self.findings += [
            row_finding.formula_like(row.number, column, row.cells[self._positions[target]])
            for target, column in self._columns.items()
            if table.looks_like_formula(row.cells[self._positions[target]])
        ]
        return checked if isinstance(checked, Admitted) else None

    def wanted(self, row: table.Row) -> Wanted:
        """Return what a row asks for, in the words it was typed in."""
        cells = {target: self._cell(row, target) for target in self._columns}
        return Wanted(
            template=self._template.id,
            recipient_name=cells[NAME],
            recipient_email=cells[EMAIL],
            locale=cells.get(LOCALE, "").strip().lower() or "en",
            fields={
                target.removeprefix(FIELDS): cell
                for target, cell in cells.items()
                if target.startswith(FIELDS)
            },
            issued_on=cells.get(ISSUED_ON) or None,
            expires_on=cells.get(EXPIRES_ON) or None,
            external_id=cells.get(EXTERNAL_ID, "").strip() or None,
        )

    def _shape(self, row: table.Row) -> Iterator[RowFinding]:
        if len(row.cells) < len(self._header):
            yield row_finding.incomplete(row.number, len(row.cells), self._header)
        elif any(cell.strip() for cell in row.cells[len(self._header) :]):
            yield row_finding.overlong(row.number, len(row.cells), self._header)

    def _cell(self, row: table.Row, target: str) -> str:
        cell = row.cells[self._positions[target]]
        return self._dates.as_iso(cell) if target in self._date_targets else cell

    def _finding(self, row: table.Row, error: FieldError) -> RowFinding:
        target = _POINTERS.get(error.pointer, FIELDS + error.pointer.rpartition("/")[2])
        if target not in self._columns:
            return RowFinding(row.number, None, None, error.code, f"cannot be issued: {error.detail}.")
        value = row.cells[self._positions[target]]
        column = self._columns[target]
        return row_finding.of_error(row.number, column, value, error, date_hint=self._dates.hint)
