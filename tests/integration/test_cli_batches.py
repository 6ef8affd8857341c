# SPDX-License-Identifier: Apache-2.0
"""`conferral batch` and `conferral issue` on a real database, with the workers in this process."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conferral.domain.table import PROBLEM_COLUMN, Table
from conferral.store.tables import batches, credentials, mailbox
from support.command import Shell
from support.product import Product, product_on

EXAMPLE = Path(__file__).parents[2] / "examples" / "graduates.csv"
FIXTURES = Path(__file__).parents[1] / "fixtures"
HEADER = "Full name,E-mail,Course\n"


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """Yield the product on SQLite, its clock beyond what commands write now."""
    with product_on("sqlite", tmp_path) as made:
        made.time.move_to(datetime.now(UTC) + timedelta(minutes=1))
        yield made


@pytest.fixture
def shell(product: Product) -> Shell:
    """Return a shell on the product's data directory."""
    return Shell(product.settings.data_dir, {})


@contextmanager
def working(product: Product) -> Iterator[None]:
    """Execute whatever becomes due, beside the command that waits for it."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(0.1):
            product.run()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        is_over.set()
        worker.join()


def test_the_example_is_issued_when_it_is_confirmed(product: Product, shell: Shell) -> None:
    """25 rows, 25 credentials, 25 mails."""
    done = shell.run("batch", "issue", EXAMPLE, "--template", "diploma", "--yes", "--json")
    assert done.code == 0, done.err
    checked, made = done.records
    assert (checked["event"], checked["rows"], checked["ready"]) == ("checked", 25, 25)
    product.run()
    watched = shell.run("batch", "watch", made["batch_id"], "--json").records
    assert watched[-1]["event"] == "done"
    assert watched[-1]["credentials"] == {"issued": 25}
    assert len(product.rows(mailbox)) == 25


def test_nothing_is_issued_when_nobody_can_be_asked(product: Product, shell: Shell) -> None:
    """Without a terminal, --yes is needed; the message says what would be done."""
    done = shell.run("batch", "issue", EXAMPLE, "--template", "diploma")
    assert done.code == 2
    assert "issue 25 credentials, add 25 log entries and send 25 mails" in done.err
    assert product.rows(batches) == []


def test_the_messy_file_gives_exactly_the_planted_errors(
    product: Product, shell: Shell, tmp_path: Path
) -> None:
    """Six rows are named and kept beside the file; the 34 others are issued."""
    file = tmp_path / "messy.csv"
    shutil.copy(FIXTURES / "graduates-messy-excel.csv", file)
    done = shell.run("batch", "issue", file, "--template", "diploma", "--yes", "--json")
    assert done.code == 1
    found = [record for record in done.records if record["event"] == "finding"]
    assert [(one["row"], one["column"], one["code"]) for one in found if one["severity"] == "error"] == [
        (5, "E-mail", "email_invalid"),
        (9, "Completed on", "date_invalid"),
        (17, "Full name", "field_required"),
        (21, "Full name", "field_too_long"),
        (26, "Full name", "field_invalid"),
        (34, None, "field_required"),
    ]
    assert [(one["row"], one["code"]) for one in found if one["severity"] == "warning"] == [
        (12, "address_repeated"),
        (30, "formula_like"),
    ]
    with (tmp_path / "messy.errors.csv").open("rb") as stream:
        assert len(list(Table(stream).rows())) == 6
    assert PROBLEM_COLUMN in (tmp_path / "messy.errors.csv").read_text("utf-8-sig").splitlines()[0]
    product.run()
    issued = product.rows(credentials)
    assert len(issued) == 34
    assert [row.fields["course"] for row in issued if row.batch_row == 30] == [
        '=HYPERLINK("http://evil.example","x")'
    ]


def test_a_windows_file_is_read_and_its_guess_is_said(shell: Shell) -> None:
    """Names keep their accents, and somebody is asked to look."""
    done = shell.run(
        "batch", "issue", FIXTURES / "graduates-cp1252.csv", "--template", "diploma", "--dry-run"
    )
    assert done.code == 0
    assert "✓ graduates-cp1252.csv  Windows-1252 (guessed), ';'  2 rows  → issuing 2" in done.out
    assert "Look at the accents" in done.out


@pytest.mark.parametrize(
    ("content", "words", "end"),
    [
        ("", (), (3, "the file is empty")),
        ("Name,E-mail\nA,a@b.example\n", (), (3, "no column is recognised as fields.course")),
        (HEADER + "A,nobody,X\n", (), (3, "→ nothing to issue")),
        (HEADER + "A,a@b.example,X\n", ("--map", "colour=Course"), (3, "there is no field")),
        (HEADER + "A,a@b.example,X\n", ("--date-format", "DMY"), (3, "DD.MM.YYYY")),
        (HEADER + "A,a@b.example,X\n", ("--template", "gold"), (3, "known: diploma")),
        (HEADER + "A,a@b.example,X\n", ("--org", "nobody"), (5, "there is no organisation")),
    ],
)
def test_a_file_that_cannot_be_issued_ends_with_one_clear_message(
    shell: Shell, tmp_path: Path, content: str, words: tuple[str, ...], end: tuple[int, str]
) -> None:
    """No traceback, the reason in words, the exit code of the reference."""
    file = tmp_path / "people.csv"
    file.write_text(content)
    done = shell.run("batch", "issue", file, "--template", "diploma", "--yes", *words)
    code, says = end
    assert done.code == code
    assert says in done.out + done.err
    assert "Traceback" not in done.err


def test_a_column_is_taken_as_a_person_says_and_dates_as_they_are_written(
    product: Product, shell: Shell, tmp_path: Path
) -> None:
    """--map and --date-format are obeyed, ISO dates are still read."""
    file = tmp_path / "people.csv"
    file.write_text("Wer,Post,Fach,Tag\nAda,a@b.example,X,26.06.2026\nBob,b@b.example,Y,2026-06-27\n")
    words = ["--map", "recipient.name=wer", "--map", "recipient.email=Post", "--map", "course=Fach"]
    words += ["--map", "completed_on=Tag", "--date-format", "DD.MM.YYYY"]
    assert shell.run("batch", "issue", file, "--template", "diploma", "--yes", *words).code == 0
    product.run()
    issued = {row.batch_row: row.fields["completed_on"] for row in product.rows(credentials)}
    assert issued == {1: "2026-06-26", 2: "2026-06-27"}


def test_rows_with_a_known_external_id_are_left_out_when_a_file_comes_again(
    product: Product, shell: Shell, tmp_path: Path
) -> None:
    """The same content is skipped, other content is an error, a repetition in the file is named."""
    file = tmp_path / "people.csv"
    file.write_text("Name,E-mail,Course,External id\nAda,a@b.example,X,1\nBob,b@b.example,X,2\n")
    assert shell.run("batch", "issue", file, "--template", "diploma", "--yes").code == 0
    product.run()
    file.write_text(
        "Name,E-mail,Course,External id\n"
        "Ada,a@b.example,X,1\nBob,b@b.example,Y,2\nEve,e@b.example,X,3\nEva,v@b.example,X,3\n"
    )
    done = shell.run("batch", "issue", file, "--template", "diploma", "--yes", "--json")
    found = [(one["row"], one["code"]) for one in done.records if one["event"] == "finding"]
    assert found == [(1, "already_issued"), (2, "external_id_conflict"), (4, "external_id_conflict")]
    product.run()
    assert len(product.rows(credentials)) == 3


def test_watching_ends_with_seven_at_the_timeout_and_says_how_to_come_back(shell: Shell) -> None:
    """Nobody works here, and that is said, too."""
    done = shell.run(
        "batch", "issue", EXAMPLE, "--template", "diploma", "--yes", "--watch", "--timeout", "0.5"
    )
    assert done.code == 7
    assert "No worker is running" in done.err
    assert "conferral batch watch bat_" in done.err


def test_watching_shows_lines_and_ends_with_one_when_something_failed(
    product: Product, shell: Shell, tmp_path: Path
) -> None:
    """A job that watches fails when a mailbox does not exist, and names the row."""
    file = tmp_path / "people.csv"
    file.write_text(HEADER + "Ada,a@b.example,X\nBob,bounce@test.invalid,X\n")
    words = ("--template", "diploma", "--yes", "--watch", "--timeout", "60")
    with working(product):
        done = shell.run("batch", "issue", file, *words)
    assert done.code == 1, done.out
    assert "Issued 2/2  E-mail 1/2 ✗1" in done.out
    assert "row 2, e-mail: The mailbox does not exist. " in done.out
    assert "[mailbox_unknown]" in done.out
    listed = shell.run("batch", "list", "--json").records
    assert listed[0]["status"] == "completed"
    shown = shell.run("batch", "status", listed[0]["batch_id"], "--json").records[0]
    assert [one["row"] for one in shown["failures"]] == [2]


def test_one_credential_is_issued_and_waited_for(product: Product, shell: Shell) -> None:
    """The answer holds both ids; the end of waiting is the status of the task."""
    words = ("--name", "Ada Lovelace", "--email", "ada@alumni.example", "--field", "course=Engines")
    with working(product):
        done = shell.run("issue", "--template", "diploma", *words, "--wait", "--timeout", "60", "--json")
    assert done.code == 0, done.err
    accepted, status = done.records
    assert accepted["credential_id"].startswith("cred_")
    assert status["state"] == "SUCCESS"
    assert status["result"] == {"status": "issued", "credential_id": accepted["credential_id"]}


def test_one_credential_with_wrong_values_names_the_options(shell: Shell) -> None:
    """What is wrong is said by the words that were typed."""
    done = shell.run("issue", "--template", "diploma", "--name", "A", "--email", "b", "--field", "colour=red")
    assert done.code == 3
    for option in ("--email:", "--field course:", "--field colour:"):
        assert option in done.err
    assert shell.run("issue", "--template", "x", "--name", "A", "--email", "b", "--field", "c").code == 2
