# SPDX-License-Identifier: Apache-2.0
"""A database that refuses single rows: a trigger that raises for what is about some recipients.

`with cursed(house, "leaves", "one@example.com"): …`; PLACES are the tables and what of them is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from conferral.store.engine import open_engine
from support.chaos_house import House

PLACES = {
    "credentials": "substr(NEW.recipient_email, 1, {long}) = '{who}'",
    "runs": "NEW.task = 'tasks.issuance.issue_credential' AND NEW.subject IN ({theirs})",
    "leaves": "NEW.credential_id IN ({theirs})",
}
THEIRS = "SELECT id FROM credentials WHERE substr(recipient_email, 1, {long}) = '{who}'"
SQLITE_CURSE = """
CREATE TRIGGER curse BEFORE INSERT ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'chaos'); END
"""
POSTGRESQL_CURSE = """
CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF {condition} THEN RAISE EXCEPTION 'chaos'; END IF; RETURN NEW; END $$
"""
POSTGRESQL_TRIGGER = "CREATE TRIGGER curse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION curse()"
CURSES = {
    "sqlite": ((SQLITE_CURSE,), ("DROP TRIGGER curse",)),
    "postgresql": (
        (POSTGRESQL_CURSE, POSTGRESQL_TRIGGER),
        ("DROP TRIGGER curse ON {table}", "DROP FUNCTION curse"),
    ),
}


@contextlib.contextmanager
def cursed(house: House, place: str, email: str) -> Iterator[None]:
    """Let one table refuse what is about recipients whose address begins like this."""
    named = {"who": email, "long": len(email)}
    condition = PLACES[place].format(**named, theirs=THEIRS.format(**named))
    begin, end = CURSES[house.kind]
    names = {"table": place.split(" ", maxsplit=1)[0], "condition": condition}
    execute(house, *(one.format(**names) for one in begin))
    try:
        yield
    finally:
        execute(house, *(one.format(**names) for one in end))


def execute(house: House, *statements: str, alone: bool = False) -> None:
    """Execute statements on the true database, in one transaction or each without one."""
    engine = open_engine(house.database_url)
    try:
        with engine.begin() as connection:
            if alone:
                connection.exec_driver_sql("COMMIT")
            for statement in statements:
                connection.exec_driver_sql(statement)
            if alone:
                connection.exec_driver_sql("BEGIN")
    finally:
        engine.dispose()
