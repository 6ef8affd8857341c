# SPDX-License-Identifier: Apache-2.0
"""`conferral templates`: what credentials are made from, and whether they can be suspended."""

from __future__ import annotations

import click

from conferral.adapters import design_store
from conferral.cli import installation, showing
from conferral.domain.status_change import SUSPENSION
from conferral.services import tenancy
from conferral.store.queries import issuers


@click.group()
def templates() -> None:
    """Create and list templates."""


@templates.command("create")
@click.argument("name")
@click.option(
    "--design", type=click.Choice(design_store.design_names()), default="diploma", show_default=True,
    help="What the certificate looks like.",
)  # fmt: skip
@click.option(
    "--suspendable", is_flag=True,
    help="Its credentials can be suspended and reinstated; chosen now, for good.",
)  # fmt: skip
@installation.with_json
@installation.for_organisation
def create(name: str, design: str, suspendable: bool, as_json: bool, organisation: str | None) -> None:
    """Make a template of a built-in design."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.transaction() as session:
            template_id = tenancy.add_template(
                rt, session, owner.id, name.strip()[:100], design=design, suspendable=suspendable
            )
    if as_json:
        showing.emit({"id": template_id, "name": name, "design": design, "suspendable": suspendable})
        return
    showing.say(f"{template_id}  {name}  {design}{'  suspendable' if suspendable else ''}")


@templates.command("list")
@installation.with_json
@installation.for_organisation
def list_templates(as_json: bool, organisation: str | None) -> None:
    """List templates by name."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.snapshot() as session:
            found = issuers.templates_of(session, owner.id)
    if as_json:
        for row in found:
            showing.emit(
                {"id": row.id, "name": row.name, "design": row.design,
                 "suspendable": row.status_purpose == SUSPENSION}
            )  # fmt: skip
        return
    showing.rows(
        ("template", "name", "design", "suspendable"),
        (
            (row.id, row.name, row.design, "yes" if row.status_purpose == SUSPENSION else "no")
            for row in found
        ),
    )
