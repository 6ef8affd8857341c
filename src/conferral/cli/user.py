# SPDX-License-Identifier: Apache-2.0
"""`conferral user`: people who sign in to the console. Passwords are generated and shown once."""

from __future__ import annotations

import click
from sqlalchemy.orm import Session

from conferral.cli import installation, showing
from conferral.domain import recipient
from conferral.domain.problems import FieldError, Problem
from conferral.services import tenancy
from conferral.services.runtime import Runtime
from conferral.store.queries import bookkeeping, people
from conferral.store.queries import tenancy as organisations

ROLES = ("owner", "manager", "viewer")


@click.group()
def user() -> None:
    """Create people who may sign in to the console, and reset their logins."""


@user.command("create")
@click.argument("email")
@click.option("--name", default="", help="The person's name (default: the address).")
@click.option(
    "--role", type=click.Choice(ROLES), default="owner", show_default=True, help="What they may do."
)
@installation.for_organisation
@installation.with_json
def create(email: str, name: str, role: str, organisation: str | None, as_json: bool) -> None:
    """Let a person sign in; somebody known already becomes a member of one more organisation."""
    address = recipient.address(email, "EMAIL")
    if isinstance(address, FieldError):
        raise Problem("validation_failed", address.detail, errors=[address])
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        password = tenancy.generated_password(rt)
        with rt.database.transaction() as session:
            known = organisations.user_by_email(session, address.lower())
            if known is not None and any(row.id == known.id for row in people.members_of(session, owner.id)):
                raise Problem("state_conflict", f"this person is a member of {owner.slug} already")
            if known is None:
                user_id = tenancy.create_user(rt, session, address, name or address, password)
            else:
                user_id = known.id
            organisations.add_member(session, owner.id, user_id, role)
            _audit(rt, session, owner.id, "member.added", user_id)
    shown = password if known is None else None
    if as_json:
        showing.emit({"id": user_id, "organisation_id": owner.id, "role": role, "password": shown})
        return
    if shown is not None:
        showing.say(shown)
    said = "This is the only time the password is shown." if shown else "The password stays as it is."
    showing.remark(f"{user_id}, {role} of {owner.slug}. {said}")


@user.command("list")
@installation.for_organisation
@installation.with_json
def list_people(organisation: str | None, as_json: bool) -> None:
    """List the people of an organisation, oldest first."""
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.snapshot() as session:
            found = people.members_of(session, owner.id)
    if as_json:
        for row in found:
            showing.emit({"id": row.id, "email": row.email, "name": row.name, "role": row.role})
        return
    showing.rows(
        ("person", "role", "address", "name"), ((row.id, row.role, row.email, row.name) for row in found)
    )


@user.command("password")
@click.argument("email")
@installation.with_json
def password(email: str, as_json: bool) -> None:
    """Give a person a new password and sign them out everywhere."""
    with installation.opened() as rt:
        made = tenancy.generated_password(rt)
        hashed = tenancy.hash_password(made, rt.random(16))
        with rt.database.transaction() as session:
            found = organisations.user_by_email(session, email.strip().lower())
            if found is None:
                raise Problem("not_found", "nobody signs in with this address; see `conferral user list`")
            people.set_password(session, found.id, hashed)
            _audit(rt, session, None, "user.password_reset", found.id)
    if as_json:
        showing.emit({"id": found.id, "password": made})
        return
    showing.say(made)
    showing.remark(f"{found.id}. This is the only time the password is shown.")


def _audit(rt: Runtime, session: Session, where: str | None, action: str, user_id: str) -> None:
    bookkeeping.audit(
        session, organisation_id=where, actor=installation.ACTOR, action=action, subject=user_id,
        created_at=rt.database.now(),
    )  # fmt: skip
