# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cell, in the words of the command line's reference."""

from __future__ import annotations

import pytest

from conferral.domain import recipient, row_finding
from conferral.domain.problems import FieldError
from conferral.domain.row_finding import of_error, quoted

HINT = "YYYY-MM-DD, or pass --date-format"


def error(found: object) -> FieldError:
    """Return what was refused."""
    assert isinstance(found, FieldError)
    return found


def test_a_wrong_address_reads_as_the_reference_says() -> None:
    """Row, column, value, reason, cure, code."""
    found = of_error(
        17, "E-mail", "jane@exmple", error(recipient.address("jane@exmple", "#")), date_hint=HINT
    )
    assert str(found) == (
        'row 17, column E-mail: "jane@exmple" is not an e-mail address (domain has no dot). '
        "Fix the cell or remove the row. [email_invalid]"
    )


def test_a_wrong_date_reads_as_the_reference_says() -> None:
    """What is expected stands beside what came."""
    found = of_error(52, "issued", "31/02/2026", error(recipient.day("31/02/2026", "#")), date_hint=HINT)
    assert str(found) == (
        'row 52, column issued: "31/02/2026" is not a date; expected YYYY-MM-DD, or pass --date-format. '
        "[date_invalid]"
    )


def test_a_day_that_does_not_exist_is_not_called_a_wrong_format() -> None:
    """The format is right; the calendar is the problem."""
    found = of_error(1, "issued", "2026-02-30", error(recipient.day("2026-02-30", "#")), date_hint=HINT)
    assert "the calendar has no such day" in str(found)
    assert "--date-format" not in str(found)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Eve\r\nBcc: all@victim.example", "Eve⏎Bcc: all@victim.example"),
        ("\x1b[31mred", "<U+001B>[31mred"),
        ("\u202egnp.exe", "<U+202E>gnp.exe"),
        ("x" * 100, "x" * 59 + "…"),
        ("नि\u200dशा", "नि\u200dशा"),
    ],
)
def test_a_value_cannot_do_anything_to_a_terminal(value: str, shown: str) -> None:
    """Escape codes, direction overrides and line breaks are shown, never obeyed."""
    assert quoted(value) == shown


def test_a_row_without_enough_cells_names_the_missing_columns() -> None:
    """The whole row is meant, so no cell is quoted."""
    found = row_finding.incomplete(34, 2, ("Name", "E-mail", "Course"))
    assert str(found) == (
        'row 34 is incomplete: it has 2 cells and the header has 3; missing: "Course". '
        "Complete the row or remove it. [field_required]"
    )


def test_a_finding_on_the_wire_has_every_key() -> None:
    """Scripts read row, column, code and severity; people read the message."""
    found = row_finding.formula_like(3, "Course", "=1+1").as_wire()
    assert set(found) == {"row", "column", "value", "code", "severity", "message"}
    assert found["severity"] == "warning"
