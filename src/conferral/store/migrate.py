# SPDX-License-Identifier: Apache-2.0
"""Bring a database to this version's schema, and tell whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from conferral.store.engine import lock_for_migration

_FOLDER = Path(__file__).parent / "migrations"


class SchemaIsNewer(Exception):
    """The schema was made by a later version, which alone may change it."""


def upgrade(engine: Engine) -> None:
    """Apply what is missing, in one transaction where the database can.

    Raises:
        SchemaIsNewer: the database was migrated by a later version.
    """
    with engine.begin() as connection:
        lock_for_migration(connection)
        if is_newer(connection):
            raise SchemaIsNewer
        command.upgrade(configuration(connection), "head")


def is_current(connection: Connection) -> bool:
    """Return whether the schema is this version's."""
    found = MigrationContext.configure(connection).get_current_revision()
    return found == ScriptDirectory.from_config(configuration()).get_current_head()


def is_newer(connection: Connection) -> bool:
    """Return whether the schema is one that this version has never heard of."""
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(configuration()).walk_revisions()}
    return found is not None and found not in known


def configuration(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration; we have no ini file."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config
