# SPDX-License-Identifier: Apache-2.0
"""Read a CSV file for a template: which rows can be issued, and everything that is wrong with the others.

Every row is checked by the same admission as a request to the API. All findings are told at once; good
rows never wait for bad ones. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from conferral.adapters import design_store
from conferral.domain import column_names, row_finding, table
from conferral.domain.column_names import EMAIL, EXPIRES_ON, EXTERNAL_ID, FIELDS, ISSUED_ON, LOCALE, NAME
from conferral.domain.problems import FieldError, Problem
from conferral.domain.row_finding import RowFinding
from conferral.services import admission
from conferral.services.admission import Admitted, Wanted
from conferral.services.batching import Row
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import external_ids
from conferral.store.records import Record

LOOKED_UP: Final = 500  # external ids a query
_DATE_TOKENS: Final = (("YYYY", "%Y"), ("MM", "%m"), ("DD", "%d"))
_POINTERS: Final = {
    "#/recipient/name": NAME,
    "#/recipient/email": EMAIL,
    "#/recipient/locale": LOCALE,
    "#/issued_on": ISSUED_ON,
    "#/expires_on": EXPIRES_ON,
    "#/external_id": EXTERNAL_ID,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file says.

    Attributes:
        table: as it was read, with what was guessed.
        columns: target → column, as mapped.
        rows: those that can be issued.
        findings: errors and warnings, by row.
    """

    table: table.Table
    columns: Mapping[str, str]
    rows: tuple[Row, ...]
    findings: tuple[RowFinding, ...]

    @property
    def errors(self) -> list[RowFinding]:
        """What keeps rows from being issued."""
        return [one for one in self.findings if one.is_error]

    @property
    def warnings(self) -> list[RowFinding]:
        """What somebody should look at."""
        return [one for one in self.findings if not one.is_error]

    @property
    def bad_rows(self) -> list[int]:
        """The numbers of the rows that cannot be issued."""
        return sorted({one.row for one in self.errors})

    @property
    def ignored_columns(self) -> list[str]:
        """The columns that mean nothing to the template."""
        used = set(self.columns.values())
        return [name for name in self.table.header if name and name not in used]


def read(
    rt: Runtime,
    caller: Caller,
    template: Record,
    content: bytes,
    *,
    mapping: Sequence[str] = (),
    date_format: str | None = None,
) -> Reading:
    """Read and check a file.

    Args:
        rt: the runtime.
        caller: whose external ids are looked up.
        template: as `admission.find_template` returns it.
        content: the file's bytes.
        mapping: `field=column` pairs; they win over what is guessed.
        date_format: `DD/MM/YYYY` and the like; ISO dates are always read.

    Raises:
        Problem: `csv_unreadable`, `csv_column_missing`, `too_many_rows`, `body_too_large`,
            `validation_failed` for a mapping or date format that makes no sense.
    """
    found = _table(content)
    fields = {field.id: field for field in design_store.fields_of(template.design)}
    columns = _columns(found, fields, mapping)
    reader = _Reader(template, found, columns, _Dates(date_format), tuple(fields.values()))
    good: list[tuple[Row, Admitted]] = []
    findings: list[RowFinding] = []
    for row in found.rows:
        admitted = reader.check(rt, row)
        findings += reader.findings
        if admitted is not None:
            good.append((Row(row.number, reader.wanted(row)), admitted))
    good, repeated = _without_known(rt, caller, template, good, columns.get(EXTERNAL_ID))
    findings += repeated
    findings += _repeated_addresses(good, columns[EMAIL])
    findings.sort(key=lambda one: (one.row, not one.is_error))
    return Reading(found, columns, tuple(row for row, _ in good), tuple(findings))


def _table(content: bytes) -> table.Table:
    try:
        return table.read_table(content)
    except table.TableRefused as refused:
        raise Problem(refused.code, refused.detail) from None


def errors_file(reading: Reading) -> bytes:
    """Return the bad rows with their reasons as CSV, to be mended and read again."""
    reasons: dict[int, list[str]] = {}
    for one in reading.errors:
        reasons.setdefault(one.row, []).append(str(one))
    width = len(reading.table.header)
    rows = (
        [
            str(row.number),
            *row.cells[:width],
            *[""] * (width - len(row.cells)),
            " | ".join(reasons[row.number]),
        ]
        for row in reading.table.rows
        if row.number in reasons
    )
    header = ("row", *reading.table.header, "problem")
    return table.write_table(header, rows, delimiter=reading.table.delimiter)


def _padded(cells: Sequence[str], width: int) -> list[str]:
    return [*cells[:width], *[""] * (width - len(cells))]


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


def _repeated_addresses(good: Sequence[tuple[Row, Admitted]], column: str) -> Iterator[RowFinding]:
    seen: dict[str, int] = {}
    for row, admitted in good:
        first = seen.setdefault(admitted.recipient_email.casefold(), row.number)
        if first != row.number:
            yield row_finding.repeated_address(row.number, column, row.wanted.recipient_email.strip(), first)


def _without_known(
    rt: Runtime, caller: Caller, template: Record, good: list[tuple[Row, Admitted]], column: str | None
) -> tuple[list[tuple[Row, Admitted]], list[RowFinding]]:
    """Take out rows whose external id is taken: by another row, or by a credential."""
    if column is None:
        return good, []
    findings: list[RowFinding] = []
    first_rows: dict[str, int] = {}
    kept = []
    known = _known(rt, caller, [one.external_id for _, one in good if one.external_id is not None])
    for row, admitted in good:
        if admitted.external_id is None:
            kept.append((row, admitted))
            continue
        external_id = admitted.external_id
        first = first_rows.setdefault(external_id, row.number)
        if first != row.number:
            findings.append(row_finding.repeated_id(row.number, column, external_id, first))
        elif external_id in known:
            earlier_id, digest = known[external_id]
            is_same = digest == admitted.content_digest(template.version_id)
            say = row_finding.already_issued if is_same else row_finding.taken_id
            findings.append(say(row.number, column, external_id, earlier_id))
        else:
            kept.append((row, admitted))
    return kept, findings


def _known(rt: Runtime, caller: Caller, wanted: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    known: dict[str, tuple[str, bytes]] = {}
    remaining = iter(wanted)
    with rt.database.snapshot() as session:
        while some := list(islice(remaining, LOOKED_UP)):
            rows = external_ids.taken(session, caller.organisation_id, caller.mode, some)
            known.update({row.external_id: (row.id, row.content_digest) for row in rows})
    return known
