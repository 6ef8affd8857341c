# SPDX-License-Identifier: Apache-2.0
"""The installation that a command works on: its database and services, the organisation that is meant.

A command is a process of its own beside `conferral up`: it writes through the same services, and what it
promises is executed by the workers. It never executes anything itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from sqlalchemy.exc import OperationalError, ProgrammingError

from conferral import wiring
from conferral.cli import processes
from conferral.domain.credential import Mode
from conferral.domain.problems import Problem
from conferral.services import tenancy
from conferral.services.runtime import Caller, Runtime
from conferral.settings import Settings
from conferral.store.queries import tenancy as organisations
from conferral.store.records import Record

ACTOR = "cli"  # in the audit log: whoever has a shell on this host
_AnyFunction = TypeVar("_AnyFunction", bound=Callable[..., Any])


def for_organisation(function: _AnyFunction) -> _AnyFunction:
    """Add `--org`."""
    said = "Id or slug of the organisation (default: the oldest)."
    return click.option("--org", "organisation", metavar="ID", help=said)(function)


def in_mode(function: _AnyFunction) -> _AnyFunction:
    """Add `--live`."""
    said = "Live mode: real recipients, real mail (default: test mode)."
    return click.option("--live", is_flag=True, help=said)(function)


def with_json(function: _AnyFunction) -> _AnyFunction:
    """Add `--json`."""
    said = "Print one JSON object a line, and nothing else, on stdout."
    return click.option("--json", "as_json", is_flag=True, help=said)(function)


@contextmanager
def opened(settings: Settings | None = None) -> Iterator[Runtime]:
    """Yield the runtime of this installation, and close its connections afterwards.

    Raises:
        Problem: `database_unavailable` when the schema is not this version's.
    """
    # Our libraries' remarks are for logs; a command says itself what its user needs to know.
    logging.getLogger().addHandler(logging.NullHandler())
    rt = wiring.build(settings or processes.prepared("cli"))
    try:
        yield rt
    except (OperationalError, ProgrammingError):
        if _has_our_schema(rt):
            raise
        detail = "the database is not at this version's schema; " + (
            "a later version migrated it: run that version"
            if _is_newer(rt)
            else "start `conferral up` or run `conferral migrate`"
        )
        raise Problem("database_unavailable", detail) from None
    finally:
        rt.database.dispose()


def organisation_named(rt: Runtime, named: str | None) -> Record:
    """Return the organisation of an id or a slug; the oldest where none is named.

    Raises:
        Problem: `not_found`.
    """
    with rt.database.snapshot() as session:
        if named is None:
            return tenancy.default_organisation(session)
        found = organisations.organisation(session, named) or organisations.organisation_by_slug(
            session, named
        )
    if found is None:
        raise Problem("not_found", f"there is no organisation {named[:60]!r}; see `conferral org list`")
    return found


def caller_of(rt: Runtime, named: str | None, *, live: bool = False) -> Caller:
    """Return on whose behalf this command acts; test mode unless `--live` was said."""
    mode: Mode = "live" if live else "test"
    return Caller(organisation_named(rt, named).id, mode, ACTOR, frozenset(("admin",)))


def _is_newer(rt: Runtime) -> bool:
    from conferral.store import migrate

    with rt.database.engine.connect() as connection:
        return migrate.is_newer(connection)


def _has_our_schema(rt: Runtime) -> bool:
    # A fifth of a second, paid only when something is wrong.
    from conferral.store import migrate

    with rt.database.engine.connect() as connection:
        return migrate.is_current(connection)
