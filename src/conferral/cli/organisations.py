# SPDX-License-Identifier: Apache-2.0
"""`conferral org`: the organisations that issue here."""

from __future__ import annotations

import click

from conferral.cli import installation, showing
from conferral.services import tenancy
from conferral.store.queries import tenancy as organisations


@click.group()
def org() -> None:
    """Create and list organisations."""


@org.command("create")
@click.argument("name")
@click.option("--slug", help="Its name in addresses: a-z, 0-9 and hyphens (default: made from the name).")
@installation.with_json
def create(name: str, slug: str | None, as_json: bool) -> None:
    """Make an organisation with the built-in template."""
    with installation.opened() as rt:
        with rt.database.transaction() as session:
            organisation_id = tenancy.create_organisation(rt, session, name, slug=slug)
        made = installation.organisation_named(rt, organisation_id)
    if as_json:
        showing.emit({"id": made.id, "slug": made.slug, "name": made.name})
        return
    showing.say(f"{made.id}  {made.slug}  {made.name}")
    showing.say(f"  next: conferral keys create --org {made.slug}")


@org.command("list")
@installation.with_json
def list_organisations(as_json: bool) -> None:
    """List organisations, oldest first; the first one is the default."""
    with installation.opened() as rt, rt.database.snapshot() as session:
        found = organisations.all_organisations(session)
    if as_json:
        for row in found:
            showing.emit({"id": row.id, "slug": row.slug, "name": row.name, "created_at": row.created_at})
        return
    showing.rows(
        ("organisation", "slug", "name", "made"), ((r.id, r.slug, r.name, r.created_at) for r in found)
    )
