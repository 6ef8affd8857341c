# SPDX-License-Identifier: Apache-2.0
"""`conferral webhooks`: the endpoints that are told what happens, and a listener for trying it out."""

from __future__ import annotations

import click

from conferral.cli import installation, showing
from conferral.cli.listener import listen
from conferral.domain.webhook_event import EVENT_TYPES
from conferral.services import subscribing
from conferral.store.queries import deliveries


@click.group()
def webhooks() -> None:
    """Add, list and remove webhook endpoints, and listen to them."""


webhooks.add_command(listen)


@webhooks.command("add")
@click.argument("url")
@click.option(
    "--event", "events", multiple=True, type=click.Choice(EVENT_TYPES),
    help="Only these events; repeat it (default: all but email.sent).",
)  # fmt: skip
@installation.in_mode
@installation.for_organisation
@installation.with_json
def add(url: str, events: tuple[str, ...], live: bool, organisation: str | None, as_json: bool) -> None:
    """Add an endpoint; its secret is shown once."""
    with installation.opened() as rt:
        caller = installation.caller_of(rt, organisation, live=live)
        with rt.database.transaction() as session:
            made = subscribing.add(rt, session, caller, url, event_types=events)
    if as_json:
        showing.emit({"id": made.id, "url": made.url, "secret": made.secret, "mode": caller.mode})
        return
    showing.say(made.secret)
    showing.remark(f"{made.id}, {caller.mode} mode, {made.url}. This is the only time the secret is shown.")


@webhooks.command("list")
@installation.for_organisation
@installation.with_json
def list_endpoints(organisation: str | None, as_json: bool) -> None:
    """List endpoints, oldest first."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.snapshot() as session:
            every = deliveries.endpoints_of(session, owner.id)
    # Listeners that have gone are no news.
    found = [row for row in every if not row.temporary or row.state == "enabled"]
    if as_json:
        for row in found:
            showing.emit(
                {
                    "id": row.id, "url": row.url, "mode": row.mode, "state": row.state,
                    "event_types": row.event_types, "temporary": row.temporary,
                    "paused_until": row.closed_until, "last_success_at": row.last_success_at,
                    "created_at": row.created_at,
                }
            )  # fmt: skip
        return
    showing.rows(
        ("endpoint", "mode", "state", "events", "last success", "address"),
        (
            (
                row.id, row.mode, "paused" if row.closed_until else row.state,
                ", ".join(row.event_types) or "all", row.last_success_at, row.url,
            )
            for row in found
        ),
    )  # fmt: skip


@webhooks.command("remove")
@click.argument("endpoint_id", metavar="ID")
@installation.for_organisation
def remove(endpoint_id: str, organisation: str | None) -> None:
    """Remove an endpoint; what waits for it ends as `endpoint_disabled`."""
    with installation.opened() as rt:
        caller = installation.caller_of(rt, organisation)
        with rt.database.transaction() as session:
            subscribing.remove(rt, session, caller, endpoint_id)
    showing.remark(f"{endpoint_id} is removed")
