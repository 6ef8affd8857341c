# SPDX-License-Identifier: Apache-2.0
"""Why a database does not do what it is asked, in one sentence, and what to do about it.

Drivers put passwords, statements and rows into their texts; so none of them is ever shown, only what is
recognised by its code, or by a phrase of the server that holds no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SETTING: Final = "CONFERRAL_DATABASE_URL"
_FOLDER: Final = "CONFERRAL_DATA_DIR"
_MIGRATE: Final = "run `conferral migrate`, or start `conferral up` of this version"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, and what to do."""

    says: str
    cure: str


UNKNOWN: Final = Trouble("the database does not answer", f"start it, or correct {_SETTING}")
_SCHEMA: Final = Trouble("the database is not at this version's schema", _MIGRATE)
_FULL: Final = Trouble("the disk of the database is full", f"make room, or move {_FOLDER}")
# By the beginning of SQLite's own name of the error.
_SQLITE: Final = (
    ("SQLITE_FULL", _FULL),
    ("SQLITE_READONLY", Trouble("the database is read-only", f"give this user {_FOLDER}, writable")),
    (
        "SQLITE_CANTOPEN",
        Trouble("the database file cannot be opened", f"see who owns {_FOLDER}, and its disk"),
    ),
    ("SQLITE_BUSY", Trouble("the database is locked by another process", "try again; `conferral status`")),
    ("SQLITE_NOTADB", Trouble("the database file is no SQLite database", f"see {_SETTING}, or your backup")),
    ("SQLITE_CORRUPT", Trouble("the database file is damaged", "stop everything and restore your backup")),
    ("SQLITE_IOERR", Trouble("the disk of the database fails, or is full", f"look at the disk of {_FOLDER}")),
    ("SQLITE_ERROR", _SCHEMA),
)
# By SQLSTATE, and by what a server says before it can send one.
_POSTGRES: Final = (
    (
        "28P01",
        "password authentication failed",
        Trouble("PostgreSQL refuses our password", f"correct {_SETTING}"),
    ),
    (
        "28000",
        "no pg_hba.conf entry",
        Trouble("PostgreSQL lets this user or host not in", "see its pg_hba.conf"),
    ),
    ("3D000", 'database "', Trouble("PostgreSQL has no such database", f"create it, or correct {_SETTING}")),
    (
        "53300",
        "too many clients",
        Trouble("PostgreSQL has no connection left", "raise max_connections there"),
    ),
    ("53100", "No space left on device", _FULL),
    ("25006", "read-only transaction", Trouble("PostgreSQL is read-only", f"name the primary in {_SETTING}")),
    ("42P01", "", _SCHEMA),
    ("42703", "", _SCHEMA),
)
_UNRESOLVED: Final = Trouble("the host of the database is not known", f"correct {_SETTING}")


def recognised(error: BaseException) -> Trouble:
    """Return what an error of SQLAlchemy means, from its driver's error alone."""
    cause = getattr(error, "orig", None) or error
    name = str(getattr(cause, "sqlite_errorname", ""))
    for beginning, trouble in _SQLITE:
        # Its plain error is whatever a statement may do wrong; only missing tables and columns are known.
        if name.startswith(beginning) and (trouble is not _SCHEMA or "no such" in str(cause)):
            return trouble
    state, text = str(getattr(cause, "sqlstate", None) or ""), str(cause)
    for code, phrase, trouble in _POSTGRES:
        if state == code or (phrase and not state and phrase in text):
            return trouble
    if "could not translate host name" in text or "resolve host" in text:
        return _UNRESOLVED
    return UNKNOWN
