# SPDX-License-Identifier: Apache-2.0
"""Files that are wrong in every way, given to `conferral batch issue`: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conferral.domain.problems import Problem
from conferral.domain.table import MAX_RECORD, PROBLEM_COLUMN
from conferral.services import admission, reading_csv
from conferral.services.reading_csv import How
from conferral.store.tables import batches, credentials
from support import require
from support.command import Shell
from support.product import Product, product_on

FIXTURES = Path(__file__).parents[1] / "fixtures"
HEADER = "Full name;E-mail;Course;Reference\r\n"
GOOD = "Ada;ada@alumni.example;Logic;s-1\r\n"
BAD = "Bob;bob@alumni;Logic;s-2\r\n"
MOST_MEMORY = 50 * 1024  # KiB beyond what an empty file costs
_MEASURED = """
import io, resource, sys
from pathlib import Path
from conferral.domain.table import Table, TableRefused
from conferral.cli import batch_file
from conferral.domain.problems import Problem
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with batch_file.opened(Path(sys.argv[1])) as stream:
        rows = sum(1 for _ in Table(stream).rows())
    said = f"{rows} rows"
except (TableRefused, Problem) as refused:
    said = f"{refused.code}: {refused.detail}"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(said)
"""


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


def write(path: Path, content: str | bytes) -> Path:
    """Write a file as it stands."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_good_rows_are_issued_while_bad_ones_wait_to_be_mended(
    product: Product, shell: Shell, tmp_path: Path
) -> None:
    """The rest is mended and given to the same command, the original again, too: everybody once."""
    odd = 'Eve;"eve; ""at"" home";=1+1;s-3\r\n'
    short, long = "Cid;cid@alumni.example\r\n", "Dan;dan@alumni.example;Logic;s-5;more;'=x\r\n"
    file = write(tmp_path / "graduates.csv", HEADER + GOOD + BAD + odd + short + long)
    words = ("batch", "issue", file, "--template", "diploma", "--yes")
    done = shell.run(*words)
    assert done.code == 1, done.err
    assert "5 rows = 1 to issue + 4 to mend" in done.out
    assert "give that file to the same command" in done.out
    rest = tmp_path / "graduates.errors.csv"
    lines = rest.read_text("utf-8-sig").splitlines()
    assert lines[0] == f"{PROBLEM_COLUMN};{HEADER.strip()}"
    assert lines[1].endswith(f";{BAD.strip()}")
    assert "column E-mail" in lines[1]
    assert lines[2].endswith(""";Eve;"eve; ""at"" home";'=1+1;s-3""")
    assert lines[3].endswith(";Cid;cid@alumni.example")
    assert lines[4].endswith(";Dan;dan@alumni.example;Logic;s-5;more;''=x")
    assert rest.stat().st_mode & 0o077 == 0
    product.run()

    mended = rest.read_text("utf-8-sig")
    mended = mended.replace(";bob@alumni;", ";bob@alumni.example;")
    mended = mended.replace(';Eve;"eve; ""at"" home"', ";Eve;eve@alumni.example")
    mended = mended.replace(";Cid;cid@alumni.example", ";Cid;cid@alumni.example;Logic;s-4")
    mended = mended.replace(";more;''=x", "")
    write(rest, mended)
    done = shell.run("batch", "issue", rest, "--template", "diploma", "--yes")
    assert done.code == 0, done.out + done.err
    product.run()
    again = shell.run("batch", "issue", rest, "--template", "diploma", "--yes")
    assert (again.code, "all were issued before" in again.out) == (0, True)
    rows = product.rows(credentials)
    assert sorted((row.external_id, row.recipient_name) for row in rows) == [
        ("s-1", "Ada"), ("s-2", "Bob"), ("s-3", "Eve"), ("s-4", "Cid"), ("s-5", "Dan"),
    ]  # fmt: skip
    assert [row.fields["course"] for row in rows if row.external_id == "s-3"] == ["=1+1"]
    assert len(product.rows(batches)) == 2


def test_rows_that_somebody_is_mending_are_never_overwritten(shell: Shell, tmp_path: Path) -> None:
    """The same rows go to the same file; others to the next name; of the rest of a rest, too."""
    file = write(tmp_path / "people.csv", HEADER + BAD)
    check = ("batch", "issue", file, "--template", "diploma", "--dry-run", "--json")
    first = tmp_path / "people.errors.csv"
    for _ in range(2):
        assert shell.run(*check).records[-1]["errors_file"] == str(first)
    write(first, first.read_text().replace("Bob", "Robert"))
    assert shell.run(*check).records[-1]["errors_file"] == str(tmp_path / "people.errors-2.csv")
    assert "Robert" in first.read_text()
    rest = shell.run("batch", "issue", first, "--template", "diploma", "--dry-run", "--json").records[-1]
    assert rest["errors_file"] == str(tmp_path / "people.errors-3.csv")


def test_the_same_file_tomorrow_issues_nobody_twice(product: Product, shell: Shell, tmp_path: Path) -> None:
    """A date that nobody asked for is no difference."""
    file = write(tmp_path / "people.csv", HEADER + GOOD)
    words = ("batch", "issue", file, "--template", "diploma", "--yes", "--json")
    assert shell.run(*words).code == 0
    product.time.move_to(product.time() + timedelta(days=1))
    product.run()
    (row,) = product.rows(credentials)
    assert row.issued_on == (datetime.now(UTC) + timedelta(days=1, minutes=1)).date()
    checked = shell.run(*words).records[-1]
    assert (checked["issued_before"], checked["rows_with_errors"]) == (1, [])


def test_a_thousand_errors_are_counted_and_the_first_are_shown(shell: Shell, tmp_path: Path) -> None:
    """A terminal is not flooded; the file has them all."""
    file = write(tmp_path / "many.csv", HEADER + "".join(f"N{n};bad;Logic;r{n}\r\n" for n in range(1_000)))
    done = shell.run("batch", "issue", file, "--template", "diploma", "--dry-run")
    assert done.code == 3
    assert "✗ 1,000 errors" in done.out
    assert "… and 950 more; all errors stand in" in done.out
    assert len(done.out.splitlines()) < 60
    assert len((tmp_path / "many.errors.csv").read_text().splitlines()) == 1_001


def test_a_header_cannot_do_anything_to_a_terminal(shell: Shell, tmp_path: Path) -> None:
    """Escape codes are refused with the place of the column."""
    file = write(tmp_path / "x.csv", "Full name;E-mail;Course;\x1b[2Jx\r\nA;a@alumni.example;X;\r\n")
    done = shell.run("batch", "issue", file, "--template", "diploma", "--dry-run")
    assert (done.code, "column 4 holds a control character" in done.err) == (3, True)
    assert "\x1b" not in done.out + done.err


def test_a_folder_that_cannot_be_written_does_not_stop_the_good_rows(
    product: Product, shell: Shell, tmp_path: Path
) -> None:
    """It is said that the rest could not be kept; it still stands in the original."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    file = write(folder / "people.csv", HEADER + GOOD + BAD)
    # What is a folder cannot be written as a file, whoever asks.
    for name in ("people.errors.csv", *(f"people.errors-{number}.csv" for number in range(2, 100))):
        (folder / name).mkdir()
    done = shell.run("batch", "issue", file, "--template", "diploma", "--yes")
    assert done.code == 1
    assert "could not be written" in done.err
    assert [row.total for row in product.rows(batches)] == [1]


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("missing.csv", 5, "there is no file"),
        (".", 3, "Is a directory"),
        ("/dev/zero", 3, "more than 50 MB"),
    ],
)
def test_what_is_no_file_is_said(shell: Shell, tmp_path: Path, name: str, code: int, says: str) -> None:
    """One sentence and the exit code of the reference."""
    done = shell.run("batch", "issue", tmp_path / name, "--template", "diploma")
    assert done.code == code
    assert says in done.err


def test_a_template_of_another_name_is_suggested(shell: Shell, tmp_path: Path) -> None:
    """The option and the nearest name."""
    file = write(tmp_path / "people.csv", HEADER + GOOD)
    done = shell.run("batch", "issue", file, "--template", "diplom")
    assert done.code == 3
    assert "--template: there is no template 'diplom'; did you mean 'diploma'?" in done.err


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


BOMBS = {
    "a gigabyte": (_huge, "body_too_large"),
    "a million columns": (lambda path: write(path, b"a," * 20_000_000), "line 1 has more than 200 columns"),
    "one endless cell": (lambda path: write(path, b"a,b\n" + b"x" * 40_000_000), "line 2 does not end"),
    "one endless row": (lambda path: write(path, b"a,b\n" + b'"\n",' * 9_000_000), "does not end"),
    "an open quote": (lambda path: write(path, b'a,b\n"' + b"x\n" * 20_000_000), "100,000 characters"),
    "blank lines": (lambda path: write(path, b"a,b\n" + b"\n" * 4_000_000), "0 rows"),
    "wide characters": (
        lambda path: write(path, ("a;b\n" + "😀" * 2 * MAX_RECORD).encode()),
        "line 2 does not end",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(tmp_path: Path, name: str) -> None:
    """Memory does not grow with the file, whatever is in it."""
    make, says = BOMBS[name]
    make(tmp_path / "bomb.csv")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, tmp_path / "bomb.csv"], capture_output=True, text=True, check=True
    )
    grown, said = done.stdout.splitlines()
    assert says in said
    assert int(grown) < MOST_MEMORY, f"{int(grown) / 1024:.0f} MiB for {name}"


@settings(
    max_examples=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), noise=st.integers(0, 40))
def test_no_mutation_of_a_file_loses_a_row_or_raises_a_fault(
    product: Product, tmp_path: Path, seed: int, noise: int
) -> None:
    """Every row is ready, to mend or issued before, and what was to mend is found again; or a Problem."""
    content = bytearray((FIXTURES / "graduates-messy-excel.csv").read_bytes())
    chance = random.Random(seed)
    for _ in range(noise):
        place = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[place] = chance.randrange(256)
            case 1:
                del content[place : place + chance.randrange(30)]
            case 2:
                content[place:place] = chance.choice(
                    [b'"', b";", b"\r", b"\n", b"\0", b"\xff", b"\xe2\x80\xae"]
                )
            case _:
                content[place:place] = content[place : place + chance.randrange(60)]
        content = content or bytearray(b"x")
    _account(product, tmp_path, bytes(content))


@settings(
    max_examples=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=st.binary(max_size=600))
def test_no_bytes_raise_a_fault(product: Product, tmp_path: Path, content: bytes) -> None:
    """Noise is refused in words."""
    _account(product, tmp_path, content)


def _account(product: Product, folder: Path, content: bytes) -> None:
    file, rest = write(folder / "noise.csv", content), folder / "rest.csv"
    with product.rt.database.snapshot() as session:
        template = admission.find_template(session, product.caller.organisation_id, "diploma")
    with file.open("rb") as stream, rest.open("w+b") as bad:
        try:
            found = reading_csv.read(product.rt, product.caller, template, stream, How(), to_mend=bad)
        except Problem:
            return  # refused whole, with a code and a sentence
        assert found.total == len(found.rows) + len(found.bad_rows) + found.left_out
        assert len(set(found.bad_rows)) == len(found.bad_rows)
        if found.bad_rows:
            how = How(mapping=[f"{target}={column}" for target, column in found.columns.items()])
            again = reading_csv.read(product.rt, product.caller, template, bad, how)
            # A row that repeats the id of a good one is good once it stands alone.
            assert again.total == len(found.bad_rows)


def test_a_file_that_nobody_may_read_is_said(tmp_path: Path) -> None:
    """Root reads everything, so root's powers are laid down first."""
    if os.geteuid() != 0:
        require.missing("only root can give a file away", "run the tests as root")
    setpriv = require.program("setpriv", "apt-get install util-linux")
    file = write(tmp_path / "secret.csv", HEADER)
    os.chown(file, 65_534, 65_534)
    file.chmod(0o600)
    done = subprocess.run(
        [setpriv, "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-P", "-m", "conferral.cli.main",
         "batch", "issue", file, "--template", "diploma"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "CONFERRAL_DATA_DIR": str(tmp_path / "data")},
    )  # fmt: skip
    assert (done.returncode, "Permission denied" in done.stderr) == (3, True)
