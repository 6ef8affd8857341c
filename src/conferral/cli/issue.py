# SPDX-License-Identifier: Apache-2.0
"""`conferral issue`: one credential, checked at once, issued by the workers."""

from __future__ import annotations

from typing import Any

import click

from conferral.cli import installation, showing, waiting
from conferral.cli.main import USAGE
from conferral.domain.problems import FieldError, Problem
from conferral.services import issuing
from conferral.services.admission import Wanted
from conferral.services.issuing import Accepted

WAIT_SECONDS = 60.0
_OPTIONS = {"template_id": "template"}


@click.command()
@click.option("--template", required=True, metavar="NAME", help="Name or id of the template.")
@click.option("--name", required=True, help="The recipient's name.")
@click.option("--email", required=True, help="The recipient's e-mail address.")
@click.option("--field", "fields", multiple=True, metavar="FIELD=VALUE", help="A field of the template.")
@click.option("--locale", default="en", show_default=True, help="Language of mail and page.")
@click.option("--issued-on", metavar="YYYY-MM-DD", help="Date of issue (default: today).")
@click.option("--expires-on", metavar="YYYY-MM-DD", help="Last day of validity (default: none).")
@click.option("--external-id", help="Your own id; the same one again is the same credential.")
@click.option("--wait", is_flag=True, help="Wait until it is issued or has failed.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=WAIT_SECONDS, show_default=True,
    metavar="SECONDS", help="With --wait: give up waiting (exit 7).",
)  # fmt: skip
@installation.with_json
@installation.for_organisation
@installation.in_mode
def issue(
    *, template: str, name: str, email: str, fields: tuple[str, ...], locale: str, issued_on: str | None,
    expires_on: str | None, external_id: str | None, wait: bool, timeout: float, as_json: bool,
    organisation: str | None, live: bool,
) -> int:  # fmt: skip
    """Issue one credential."""
    pairs = [pair.partition("=") for pair in fields]
    if any(not key.strip() or not equals for key, equals, _ in pairs):
        showing.remark("conferral: write fields as --field course=Databases")
        return USAGE
    wanted = Wanted(
        template=template, recipient_name=name, recipient_email=email, locale=locale,
        fields={key.strip(): value for key, _, value in pairs},
        issued_on=issued_on, expires_on=expires_on, external_id=external_id,
    )  # fmt: skip
    with installation.opened() as rt:
        caller = installation.caller_of(rt, organisation, live=live)
        try:
            with rt.database.transaction() as session:
                accepted = issuing.request(rt, session, caller, wanted)
        except Problem as problem:
            raise Problem(problem.code, problem.detail, errors=_by_option(problem)) from None
        _announce(accepted, as_json=as_json)
        if not wait or accepted.run_id is None:
            return 0
        return waiting.report(rt, accepted.run_id, timeout, as_json=as_json)


def _by_option(problem: Problem) -> list[FieldError]:
    """Name the options that the wrong values were given by, instead of places in a JSON body."""
    return [FieldError(_option(error.pointer), error.code, error.detail) for error in problem.errors]


def _option(pointer: str) -> str:
    place, _, name = pointer.removeprefix("#/").rpartition("/")
    return f"--field {name}" if place == "fields" else f"--{_OPTIONS.get(name, name).replace('_', '-')}"


def _announce(accepted: Accepted, *, as_json: bool) -> None:
    if as_json:
        record: dict[str, Any] = {
            "credential_id": accepted.credential_id,
            "task_id": accepted.run_id,
            "status": accepted.state,
        }
        showing.emit(record)
        return
    known = "" if accepted.is_new else "  (known already)"
    showing.say(f"{accepted.credential_id}  {accepted.state}{known}")
    showing.say(f"  follow: conferral status {accepted.run_id}")
    showing.say(f"  history: conferral timeline {accepted.credential_id}")
