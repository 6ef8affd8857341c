# SPDX-License-Identifier: Apache-2.0
"""`conferral revoke`, `suspend`, `reinstate`, `supersede`, `templates`: one, some, a file, a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conferral.store import tables
from support.command import Shell
from support.product import Product, product_on
from support.statuses import issued_rows


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


def states(product: Product) -> Counter[str]:
    """Count credentials by state."""
    return Counter(row.state for row in product.rows(tables.credentials))


def test_one_is_revoked_by_its_id_and_again_is_the_same(product: Product, shell: Shell) -> None:
    """The answer says since when; the second time changes nothing."""
    (credential_id,) = issued_rows(product, 1)
    first = shell.run("revoke", credential_id, "--reason", "misconduct", "--json")
    assert (first.code, first.records[0]["status"], first.records[0]["reason"]) == (
        0,
        "revoked",
        "misconduct",
    )
    again = shell.run("revoke", credential_id, "--json")
    assert again.records == first.records
    assert "since before" in shell.run("revoke", credential_id).out
    (line,) = product.rows(tables.audit_log, tables.audit_log.c.action == "credential.revoked")
    assert line.actor == "cli"


def test_nothing_is_changed_when_one_is_unknown_or_cannot_be(product: Product, shell: Shell) -> None:
    """5 names who is unknown, 6 says why not, 2 when nobody was named or nobody can be asked."""
    first, second = issued_rows(product, 2)
    unknown = shell.run("revoke", first, "s-1", "--yes")
    assert (unknown.code, "s-1" in unknown.err) == (5, True)
    plain = shell.run("suspend", first)
    assert (plain.code, "not suspendable" in plain.err) == (6, True)
    assert shell.run("revoke").code == 2
    assert shell.run("revoke", first, "--batch", "bat_1").code == 2
    unasked = shell.run("revoke", first, second)
    assert (unasked.code, "--yes" in unasked.err) == (2, True)
    assert states(product) == {"issued": 2}


def test_many_are_revoked_from_a_file(product: Product, shell: Shell, tmp_path: Path) -> None:
    """Ids or external ids, one a line; those that were revoked before are counted and left alone."""
    ids = issued_rows(product, 1_100)
    shell.run("revoke", ids[0])
    file = tmp_path / "withdrawn.txt"
    file.write_text("\ufeff" + "\r\n".join([*ids, "", ids[5]]), encoding="utf-8")
    done = shell.run("revoke", "--file", file, "--yes", "--json")
    assert done.code == 0, done.err
    last = done.records[-1]
    assert (last["event"], last["changed"], list(last["unchanged"])) == ("done", 1_099, [ids[0]])
    assert [one["done"] for one in done.records[:-1]] == [500, 1_000, 1_100]
    assert states(product) == {"revoked": 1_100}


def test_a_batch_is_left_to_the_workers(product: Product, shell: Shell) -> None:
    """What will change is said; without workers the command stops waiting with 7 and the work goes on."""
    issued_rows(product, 3, batch=True)
    (batch,) = product.rows(tables.batches)
    done = shell.run("revoke", "--batch", batch.id, "--yes", "--timeout", "0.2")
    assert (done.code, "3 to revoke" in done.out) == (7, True)
    product.run_only("tasks.issuance.change_batch")
    assert states(product) == {"revoked": 3}
    assert shell.run("revoke", "--batch", batch.id, "--yes").code == 0


def test_a_template_is_made_suspendable(product: Product, shell: Shell) -> None:
    """Its credentials can be suspended and reinstated; a taken name is a conflict."""
    assert shell.run("templates", "create", "licence", "--suspendable").code == 0
    assert shell.run("templates", "create", "licence").code == 6
    listed = {row["name"]: row["suspendable"] for row in shell.run("templates", "list", "--json").records}
    assert listed == {"diploma": False, "licence": True}
    (credential_id,) = issued_rows(product, 1, template="licence")
    for command, state in (("suspend", "suspended"), ("reinstate", "issued")):
        assert shell.run(command, credential_id).code == 0
        assert product.credential(credential_id).state == state


def test_names_are_corrected_one_by_one_and_from_a_file(
    product: Product, shell: Shell, tmp_path: Path
) -> None:
    """An empty cell corrects nothing; wrong rows are named, good ones do not wait for them."""
    first, second, third = issued_rows(product, 3)
    done = shell.run("supersede", first, "--name", "Ada King", "--field", "course=Engines", "--json")
    assert done.code == 0, done.err
    new = product.credential(done.records[0]["credential_id"])
    assert (new.supersedes, new.recipient_name, new.fields["course"]) == (first, "Ada King", "Engines")
    file = tmp_path / "corrections.csv"
    file.write_text(f"credential,name,email,course\n{second},,ada@exmple,\n{third},Ada Byron,,\n", "utf-8")
    many = shell.run("supersede", "--file", file, "--json")
    assert many.code == 1
    refused, accepted = many.records
    assert (refused["event"], refused["row"], refused["credential"]) == ("refused", 1, second)
    assert product.credential(accepted["credential_id"]).recipient_email == "ada@example.com"
    assert shell.run("supersede", "--file", file, "--json").records[1] == accepted
