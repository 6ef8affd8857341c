# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608 -- every statement is written here, and damages a copy
"""Every check of the audit finds what was planted for it, and no other check says anything of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from conferral.store.tables import credentials
from support.audited import Copy, copy_of_healthy
from support.product import DATABASES

Plant = Callable[[Copy], object]
OURS = "(SELECT min(organisation_id) FROM credentials)"
ISSUED = "(SELECT id FROM credentials WHERE state = 'issued' ORDER BY id LIMIT 1)"


@pytest.fixture(params=DATABASES)
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Copy]:
    """A copy of a healthy product, on each database."""
    with copy_of_healthy(request.param, tmp_path) as made:
        yield made


def damage_file(column: str) -> Plant:
    """Flip a bit in the middle of a stored file."""

    def plant(copy: Copy) -> None:
        ((digest,),) = copy.ask(f"SELECT {column} FROM credentials WHERE id = {ISSUED}")
        path = copy.file(digest)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return plant


def remove_file(copy: Copy) -> None:
    """Delete a stored file."""
    ((digest,),) = copy.ask(f"SELECT pdf_sha256 FROM credentials WHERE id = {ISSUED}")
    copy.file(digest).unlink()


def forge_bytes(table: str, column: str, where: str) -> Plant:
    """Flip a bit in the first byte of a binary column."""

    def plant(copy: Copy) -> None:
        ((content,),) = copy.ask(f"SELECT {column} FROM {table} WHERE {where}")
        forged = bytes([content[0] ^ 1]) + bytes(content[1:])
        hit = copy.write(f"UPDATE {table} SET {column} = :forged WHERE {where}", forged=forged)
        assert hit == 1

    return plant


def say(statement: str) -> Plant:
    """Damage rows by one statement."""

    def plant(copy: Copy) -> None:
        assert copy.write(statement) >= 1

    return plant


def early_attempt(copy: Copy) -> None:
    """Let an attempt, which no block sealed yet, have begun half-way to the time it was due."""
    rows = copy.ask(
        "SELECT later.run_id, later.number, earlier.finished_at, earlier.next_due_at"
        " FROM attempts earlier JOIN attempts later"
        " ON later.run_id = earlier.run_id AND later.number = earlier.number + 1"
        " LEFT JOIN audit_seals s ON s.run_id = later.run_id AND s.number = later.number"
        " WHERE s.run_id IS NULL AND earlier.next_due_at IS NOT NULL"
    )
    run_id, number, finished_at, due_at = max(rows, key=lambda row: row[3] - row[2])
    half = finished_at + (due_at - finished_at) / 2
    half = int(half) if isinstance(half, float) else half
    hit = copy.write(
        "UPDATE attempts SET started_at = :half WHERE run_id = :run_id AND number = :number",
        half=half, run_id=run_id, number=number,
    )  # fmt: skip
    assert hit == 1


FAILED = (
    "(SELECT a.run_id FROM attempts a LEFT JOIN audit_seals s ON s.run_id = a.run_id AND s.number = a.number"
    " WHERE s.run_id IS NULL AND a.outcome = 'failure' LIMIT 1)"
)
RETRIED = FAILED.replace("'failure'", "'retry'")
TICK = "tick:retry_stuck:2026-01-%"


def an_attempt_after_the_last(copy: Copy) -> None:
    """Let a permanently refused run have been tried again, although nobody replayed it."""
    ((run_id,),) = copy.ask(f"SELECT {FAILED}")
    copied = "owner, started_at, finished_at, outcome, error_code, error_detail"
    copy.write(
        f"INSERT INTO attempts (run_id, number, {copied})"
        f" SELECT run_id, number + 1, {copied} FROM attempts WHERE run_id = :run_id",
        run_id=run_id,
    )
    copy.write("UPDATE runs SET attempt = attempt + 1 WHERE id = :run_id", run_id=run_id)


def slot_left_out(copy: Copy) -> None:
    """Remove one firing of the search for stuck work, in the middle of a quarter with a Beat."""
    ((key,),) = copy.ask("SELECT key FROM runs WHERE key LIKE :tick ORDER BY key LIMIT 1 OFFSET 1", tick=TICK)
    assert copy.write("DELETE FROM runs WHERE key = :key", key=key) == 1


def slot_too_many(copy: Copy) -> None:
    """Let the search for stuck work have fired between two of its slots."""
    ((key,),) = copy.ask("SELECT key FROM runs WHERE key LIKE :tick ORDER BY key LIMIT 1 OFFSET 1", tick=TICK)
    columns = (
        "task, queue, args, subject, tenant, priority, state, attempt, spent, snoozes, due_at, created_at"
    )
    copy.write(
        f"INSERT INTO runs (id, key, result, {columns})"
        f" SELECT 'ffffffff-0000-7000-8000-000000000000', :key, '{{\"merged_into\": null}}', {columns}"
        " FROM runs WHERE key = :near",
        key=key[:-3] + "30Z",
        near=key,
    )
    copy.write("UPDATE runs SET attempt = 0 WHERE id LIKE 'ffffffff%'")


FOREIGN_VERSION = (
    "(SELECT v.id FROM template_versions v JOIN templates t ON t.id = v.template_id"
    " JOIN organisations o ON o.id = t.organisation_id WHERE o.name = 'Another School' LIMIT 1)"
)
FOREIGN = "(SELECT id FROM organisations WHERE name = 'Another School')"
A_MAIL = "(SELECT id FROM deliveries WHERE channel = 'email' AND state = 'sent' ORDER BY id LIMIT 1)"
A_HOOK = "(SELECT id FROM deliveries WHERE channel = 'webhook' AND state = 'sent' ORDER BY id DESC LIMIT 1)"
A_SEALED_LINE = "(SELECT number FROM audit_seals WHERE run_id = 'audit_log' ORDER BY block, position LIMIT 1)"


def forgotten_hook(copy: Copy) -> None:
    """Remove the delivery of an event to an endpoint that wants it."""
    copy.write(f"DELETE FROM answers WHERE delivery_id = {A_HOOK}")
    assert copy.write(f"DELETE FROM deliveries WHERE id = {A_HOOK}") == 1


A_SEALED = "(SELECT run_id, number FROM audit_seals WHERE block = 3 AND run_id <> 'audit_log' LIMIT 1)"
WAITING = "state = 'PENDING' AND task LIKE '%issue_credential'"
FIRST = "(SELECT min(size) FROM checkpoints)"
LAST = "(SELECT max(size) FROM checkpoints)"
LAST_EVENT = "(SELECT max(id) FROM events)"
REINSTATED = "state = 'issued', status_changed_at = NULL"


def change(table: str, values: str, one: str) -> str:
    """Return the statement that changes one row."""
    return f"UPDATE {table} SET {values} WHERE id = {one}"


PLANTS: list[tuple[str, str, Plant]] = [
    ("A1", "run cancelled", say(f"UPDATE runs SET state = 'REVOKED' WHERE {WAITING}")),
    ("A1", "run gone", say(f"DELETE FROM runs WHERE {WAITING}")),
    (
        "A2",
        "issued said to have failed",
        say(change("credentials", "state = 'failed', failure_code = 'x'", ISSUED)),
    ),
    (
        "A2",
        "failed without a reason",
        say("UPDATE credentials SET failure_code = NULL WHERE state = 'failed'"),
    ),
    ("A2", "sent said to have failed", say(change("deliveries", "state = 'failed'", A_MAIL))),
    ("A3", "PDF damaged", damage_file("pdf_sha256")),
    ("A3", "document damaged", damage_file("vc_sha256")),
    ("A3", "pages' digest forged", forge_bytes("credentials", "base_sha384", f"id = {ISSUED}")),
    ("A3", "pages' length forged", say(change("credentials", "base_length = base_length + 1", ISSUED))),
    (
        "A4",
        "issuer's key exchanged",
        forge_bytes("signing_keys", "public_key", f"organisation_id = {OURS} AND mode = 'test'"),
    ),
    (
        "A4",
        "another key named",
        say(change("credentials", "verification_method = 'did:key:z6Mk#z6Mk'", ISSUED)),
    ),
    ("A5", "entry forged", forge_bytes("leaves", "entry", "leaf_index = 7")),
    ("A5", "leaf gone", say("DELETE FROM leaves WHERE leaf_index = 7")),
    ("A5", "tile forged", forge_bytes("log_tiles", "data", "level = 0 AND number = 0")),
    ("A5", "tile gone", say("DELETE FROM log_tiles WHERE level = 0")),
    ("A5", "checkpoint's root forged", forge_bytes("checkpoints", "root", f"size = {FIRST}")),
    ("A5", "newest checkpoint gone", say(f"DELETE FROM checkpoints WHERE size = {LAST}")),
    (
        "A5",
        "checkpoint's note forged",
        say(f"UPDATE checkpoints SET note = replace(note, '— ', '— A') WHERE size = {FIRST}"),
    ),
    ("A5", "log's root forged", forge_bytes("logs", "root", "log = 'test'")),
    ("A7", "mail never promised", say(f"DELETE FROM deliveries WHERE id = {A_MAIL}")),
    ("A7", "another Message-ID", say(change("deliveries", "message_id = '<x@localhost>'", A_MAIL))),
    (
        "A7",
        "captured under another id",
        say(f"UPDATE mailbox SET message_id = '<x@y>' WHERE delivery_id = {A_MAIL}"),
    ),
    ("A7", "hook never promised", forgotten_hook),
    (
        "A7",
        "body of another event",
        say(change("events", "body = (SELECT body FROM events ORDER BY id LIMIT 1)", LAST_EVENT)),
    ),
    ("A7", "event gone", say(change("events", "sequence = 9", LAST_EVENT))),
    ("A8", "attempt missing", say(f"DELETE FROM attempts WHERE number = 1 AND run_id = {RETRIED}")),
    ("A8", "tried again unasked", an_attempt_after_the_last),
    ("A8", "ended otherwise", say(f"UPDATE attempts SET outcome = 'success' WHERE run_id = {FAILED}")),
    ("A9", "begun too early", early_attempt),
    ("A10", "slot left out", slot_left_out),
    ("A10", "slot too many", slot_too_many),
    (
        "A11",
        "foreign template",
        say(change("credentials", f"template_version_id = {FOREIGN_VERSION}", ISSUED)),
    ),
    ("A11", "foreign delivery", say(change("deliveries", f"organisation_id = {FOREIGN}", A_MAIL))),
    ("A11", "live delivery of a test credential", say(change("deliveries", "mode = 'live'", A_MAIL))),
    ("A11", "foreign run", say(f"UPDATE runs SET tenant = 'org_x' WHERE {WAITING}")),
    ("A12", "sealed line changed", say(change("audit_log", "actor = 'nobody'", A_SEALED_LINE))),
    ("A12", "sealed line gone", say(f"DELETE FROM audit_log WHERE id = {A_SEALED_LINE}")),
    (
        "A12",
        "sealed attempt changed",
        say(f"UPDATE attempts SET error_code = 'x' WHERE (run_id, number) IN {A_SEALED}"),
    ),
    ("A12", "seal gone", say("DELETE FROM audit_seals WHERE block = 2 AND position = 0")),
    ("A12", "hash forged", forge_bytes("audit_blocks", "hash", "number = 2")),
    ("A12", "digest forged", forge_bytes("audit_seals", "digest", "block = 2 AND position = 0")),
    ("A13", "withdrawn in the row only", say(change("credentials", "state = 'revoked'", ISSUED))),
    (
        "A13",
        "withdrawn in the list only",
        say(f"UPDATE credentials SET {REINSTATED} WHERE state = 'revoked'"),
    ),
    ("A13", "never signed", say("UPDATE status_lists SET signed = NULL")),
    ("A14", "file gone", remove_file),
]


@pytest.mark.parametrize(
    ("check", "plant"),
    [(check, plant) for check, _, plant in PLANTS],
    ids=[f"{c}: {w}" for c, w, _ in PLANTS],
)
def test_one_check_finds_it_when_something_was_planted(copy: Copy, check: str, plant: Plant) -> None:
    """What was planted is found by the check that is for it, and by no other."""
    plant(copy)
    deviations, _, _ = copy.audited()
    lines = [one.line() for one in deviations]
    assert {one.check for one in deviations} == {check}, lines


def test_an_old_file_without_a_row_is_said_when_it_is_found(copy: Copy) -> None:
    """An orphan is a remark after a day, and never a deviation."""
    for name, age_seconds in (("a" * 64, 90_000), ("b" * 64, 60)):
        path = copy.file(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nobody's")
        then = copy.rt.database.now().timestamp() - age_seconds
        os.utime(path, (then, then))
    deviations, remarks, tally = copy.audited("A14")
    assert deviations == []
    assert [one.line() for one in remarks] == [f"A14 orphan: file {'a' * 64} (8 bytes) is named by no row"]
    assert tally.orphans == 1


def test_a_fresh_change_is_no_deviation_when_its_list_is_not_signed_yet(copy: Copy) -> None:
    """The row counts at once; the list follows, and has a minute and a half for it."""
    now = copy.rt.database.now()
    with copy.rt.database.transaction() as session:
        one = session.execute(
            select(credentials.c.id).where(credentials.c.state == "issued").limit(1)
        ).scalar_one()
        session.execute(
            update(credentials).where(credentials.c.id == one).values(state="revoked", status_changed_at=now)
        )
    assert copy.audited("A13")[0] == []
