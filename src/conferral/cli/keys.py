# SPDX-License-Identifier: Apache-2.0
"""`conferral keys`: API keys, shown once when they are made and never again."""

from __future__ import annotations

import click

from conferral.cli import installation, showing
from conferral.domain.api_key import SCOPES
from conferral.domain.credential import Mode
from conferral.domain.problems import Problem
from conferral.services import tenancy
from conferral.store.queries import bookkeeping
from conferral.store.queries import tenancy as api_keys


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.option("--name", default="Command line", show_default=True, help="What the key is for.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES),
    help="What it may do; repeat it (default: everything but administration).",
)  # fmt: skip
@installation.in_mode
@installation.for_organisation
@installation.with_json
def create(name: str, scopes: tuple[str, ...], live: bool, organisation: str | None, as_json: bool) -> None:
    """Make an API key; its text is shown once."""
    mode: Mode = "live" if live else "test"
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        wanted = scopes or tenancy.DEFAULT_SCOPES
        with rt.database.transaction() as session:
            made = tenancy.create_key(rt, session, owner.id, mode, name=name, scopes=wanted)
    if as_json:
        showing.emit({"id": made.id, "key": made.text, "mode": made.mode, "scopes": list(wanted)})
        return
    showing.say(made.text)
    showing.remark(f"{made.id}, {made.mode} mode, {owner.slug}. This is the only time the key is shown.")


@keys.command("list")
@installation.for_organisation
@installation.with_json
def list_keys(organisation: str | None, as_json: bool) -> None:
    """List API keys, oldest first."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.snapshot() as session:
            found = api_keys.api_keys_of(session, owner.id)
    if as_json:
        for row in found:
            showing.emit(
                {
                    "id": row.id, "name": row.name, "mode": row.mode, "handle": row.handle,
                    "last4": row.last4, "scopes": row.scopes, "created_at": row.created_at,
                    "last_used_at": row.last_used_at, "expires_at": row.expires_at,
                    "revoked_at": row.revoked_at,
                }
            )  # fmt: skip
        return
    header = ("key", "mode", "ends in", "name", "made", "last used", "revoked")
    showing.rows(
        header,
        (
            (row.id, row.mode, row.last4, row.name, row.created_at, row.last_used_at, row.revoked_at)
            for row in found
        ),
    )


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@installation.for_organisation
def revoke(key_id: str, organisation: str | None) -> None:
    """Revoke an API key; it stops working within seconds."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        now = rt.database.now()
        with rt.database.transaction() as session:
            if not api_keys.revoke_api_key(session, owner.id, key_id, now):
                detail = f"there is no key {key_id[:60]!r} to revoke; see `conferral keys list`"
                raise Problem("not_found", detail)
            bookkeeping.audit(
                session, organisation_id=owner.id, actor=installation.ACTOR, action="api_key.revoked",
                subject=key_id, created_at=now,
            )  # fmt: skip
    showing.remark(f"{key_id} is revoked")
