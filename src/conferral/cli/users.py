# SPDX-License-Identifier: Apache-2.0
"""`conferral user`: the people who may sign in to the console."""

from __future__ import annotations

import click

from conferral.cli import installation, showing
from conferral.services import tenancy

ROLES = ("owner", "manager", "viewer")


@click.group()
def user() -> None:
    """Create people who may sign in to the console."""


@user.command("create")
@click.argument("email")
@click.option("--name", required=True, help="The person's name.")
@click.option(
    "--role", type=click.Choice(ROLES), default="owner", show_default=True, help="What they may do."
)
@installation.for_organisation
@installation.with_json
def create(email: str, name: str, role: str, organisation: str | None, as_json: bool) -> None:
    """Make a person a member of an organisation; the password is generated and shown once."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.transaction() as session:
            made = tenancy.add_member(rt, session, owner.id, email, name, role=role)
    if as_json:
        showing.emit({"id": made.id, "login": made.login, "password": made.password, "role": role})
        return
    showing.say(made.password)
    showing.remark(f"{made.login} may sign in as {role} of {owner.slug}. The password is shown only now.")
