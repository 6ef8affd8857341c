# SPDX-License-Identifier: Apache-2.0
"""`conferral audit` on an installation where nothing runs: its lines, its JSON, its exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.audited import Copy, copy_of_healthy
from support.command import Shell


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """A copy of a healthy product on SQLite."""
    with copy_of_healthy("sqlite", tmp_path) as made:
        yield made


@pytest.fixture
def shell(copy: Copy) -> Shell:
    """A shell on the copy."""
    return Shell(copy.settings.data_dir, {"CONFERRAL_DATABASE_URL": copy.settings.database_url})


def test_the_last_line_counts_when_nothing_deviates(shell: Shell) -> None:
    """Exit 0, one line, and a remark on stderr."""
    done = shell.run("audit")
    assert (done.code, done.err) == (0, "A6 no chain configured\n")
    assert re.fullmatch(r"checked \d+ credentials, \d+ runs, log \d+ · deviations 0 · \d+ s\n", done.out), (
        done.out
    )


def test_a_line_names_it_when_something_deviates(copy: Copy, shell: Shell) -> None:
    """Exit 1, and check, subject and fault in one line."""
    copy.write("DELETE FROM leaves WHERE leaf_index = 7")
    done = shell.run("audit", "--only", "A5")
    assert done.code == 1
    assert "A5 log:test leaf 7 is missing" in done.out.splitlines()
    assert "· deviations 2 ·" in done.out.splitlines()[-1]


def test_objects_are_printed_when_json_is_asked_for(copy: Copy, shell: Shell) -> None:
    """Deviations, remarks and a summary, one object a line."""
    copy.write("DELETE FROM leaves WHERE leaf_index = 7")
    records = shell.run("audit", "--json", "--sample", "3").records
    assert {record["kind"] for record in records} == {"deviation", "remark", "summary"}
    assert records[-1]["deviations"] == 2
    assert [record["check"] for record in records if record["kind"] == "deviation"] == ["A5", "A5"]


def test_it_says_so_when_the_database_is_away(shell: Shell) -> None:
    """Exit 8: nothing was checked."""
    away = Shell(shell.data_dir, {"CONFERRAL_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    done = away.run("audit")
    assert done.code == 8
    assert "database" in done.err


def test_it_is_refused_when_a_check_is_not_known(shell: Shell) -> None:
    """Exit 2, with what there is."""
    done = shell.run("audit", "--only", "A1,A77")
    assert done.code == 2
    assert "A1 to A14" in done.err
