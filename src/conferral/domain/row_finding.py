# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cell, in one sentence that its owner can act on: where, what, why, what to do.

Console, command line and the file of bad rows say it in the same words. A value is quoted so that it
cannot do anything to a terminal, and never longer than a glance.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from conferral.domain.problems import FieldError

SHOWN_CHARACTERS: Final = 60
ADDRESS_REPEATED: Final = "address_repeated"
FORMULA_LIKE: Final = "formula_like"
ALREADY_ISSUED: Final = "already_issued"
WARNINGS: Final = (ADDRESS_REPEATED, FORMULA_LIKE, ALREADY_ISSUED)
ISO_DATE: Final = "YYYY-MM-DD"
_FIX: Final = "Fix the cell or remove the row."
_NO_SUCH_DATE: Final = "there is no such date"  # as `recipient.day` says it


@dataclass(frozen=True, slots=True)
class RowFinding:
    """One error or warning: `column` and `value` are None when it is about the whole row."""

    row: int
    column: str | None
    value: str | None
    code: str
    says: str
    is_error: bool = True

    def __str__(self) -> str:
        if self.column is None or self.value is None:
            return f"row {self.row} {self.says} [{self.code}]"
        return (
            f'row {self.row}, column {quoted(self.column)}: "{quoted(self.value)}" {self.says} [{self.code}]'
        )

    def as_wire(self) -> dict[str, Any]:
        """Return the finding as JSON output shows it."""
        return {
            "row": self.row,
            "column": self.column,
            "value": self.value[:SHOWN_CHARACTERS] if self.value is not None else None,
            "code": self.code,
            "severity": "error" if self.is_error else "warning",
            "message": str(self),
        }


def quoted(text: str) -> str:
    """Return a text as it may be shown: one line, visible, at most `SHOWN_CHARACTERS`.

    >>> quoted("Eve" + chr(10) + "Bcc: x")
    'Eve⏎Bcc: x'
    """
    cut = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
    return "".join(_visible(sign) for sign in cut.replace("\r\n", "\n"))


def _visible(sign: str) -> str:
    if sign == "\n":
        return "⏎"
    if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        # Joiners belong to names in several scripts; everything else of this kind only deceives.
        return sign if sign in "\u200c\u200d" else f"<U+{ord(sign):04X}>"
    return sign


def of_error(row: int, column: str, value: str, error: FieldError, *, date_hint: str) -> RowFinding:
    """Say what admission found wrong with a cell.

    Args:
        row: its number.
        column: its header.
        value: the cell as it was typed.
        error: as the API would answer it.
        date_hint: which dates are expected, e.g. `YYYY-MM-DD, or pass --date-format`.
    """
    return RowFinding(row, column, value, error.code, _says(error, date_hint))


def _says(error: FieldError, date_hint: str) -> str:
    if error.code == "date_invalid" and error.detail == _NO_SUCH_DATE:
        return f"is not a date: the calendar has no such day. {_FIX}"
    sentence = _SENTENCES.get(error.code, "is not accepted: {detail}. " + _FIX)
    return sentence.format(detail=error.detail, date_hint=date_hint)


_SENTENCES: Final[Mapping[str, str]] = {
    "email_invalid": "is {detail}. " + _FIX,
    "date_invalid": "is not a date; expected {date_hint}.",
    "date_order": "is too early: {detail}. " + _FIX,
    "field_required": "is empty. Fill the cell or remove the row.",
    "field_too_long": "is too long: {detail}. Shorten the cell.",
    "text_unprintable": "is not printable: {detail}. Change the text, or add a font.",
}


def incomplete(row: int, cells: int, header: tuple[str, ...]) -> RowFinding:
    """Say that a row is shorter than the header."""
    missing = ", ".join(f'"{quoted(name)}"' for name in header[cells:])
    says = (
        f"is incomplete: it has {cells} cells and the header has {len(header)}; missing: {missing}. "
        "Complete the row or remove it."
    )
    return RowFinding(row, None, None, "field_required", says)


def overlong(row: int, cells: int, header: tuple[str, ...]) -> RowFinding:
    """Say that a row is longer than the header: mostly a delimiter inside a cell without quotes."""
    says = (
        f"is too long: it has {cells} cells and the header has {len(header)}. "
        "Put cells that hold the delimiter in quotes."
    )
    return RowFinding(row, None, None, "field_invalid", says)


def repeated_address(row: int, column: str, value: str, first_row: int) -> RowFinding:
    """Warn that an address occurs twice; both rows are issued."""
    says = f"is the same address as in row {first_row}. Both rows are issued."
    return RowFinding(row, column, value, ADDRESS_REPEATED, says, is_error=False)


def formula_like(row: int, column: str, value: str) -> RowFinding:
    """Warn that a spreadsheet would execute a cell; we keep it exactly."""
    says = "is text that looks like a formula. It is kept exactly as it stands."
    return RowFinding(row, column, value, FORMULA_LIKE, says, is_error=False)


def repeated_id(row: int, column: str, value: str, first_row: int) -> RowFinding:
    """Say that an external id occurs twice; one of them would be lost."""
    says = f"is the same external id as in row {first_row}. {_FIX}"
    return RowFinding(row, column, value, "external_id_conflict", says)


def taken_id(row: int, column: str, value: str, credential_id: str) -> RowFinding:
    """Say that an external id belongs to a credential with other content."""
    says = f"is the external id of {credential_id}, which has other content. {_FIX}"
    return RowFinding(row, column, value, "external_id_conflict", says)


def already_issued(row: int, column: str, value: str, credential_id: str) -> RowFinding:
    """Warn that a row was issued before; it is left out."""
    says = f"is the external id of {credential_id}, which has the same content. The row is left out."
    return RowFinding(row, column, value, ALREADY_ISSUED, says, is_error=False)
