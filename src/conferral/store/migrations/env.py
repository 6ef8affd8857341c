# SPDX-License-Identifier: Apache-2.0
"""Alembic's entry: runs on the connection that `store.migrate` hands in."""

from alembic import context

from conferral.reliable.tables import metadata as reliable
from conferral.store.tables import metadata as product

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[reliable, product],
    render_as_batch=True,  # SQLite alters a table by making it anew
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
