# SPDX-License-Identifier: Apache-2.0
"""`conferral demo`: the organisation, login and test key that a first start shows, made once.

`conferral up` runs it as a short-lived process, because a supervisor must never open the database.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from conferral.cli import processes
from conferral.settings import SettingsError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one object with everything.")
def demo(as_json: bool) -> None:
    """Make the demo organisation of a development installation; password and key are shown once."""
    from conferral import wiring
    from conferral.services import tenancy

    settings = processes.prepared("cli")
    if settings.is_production:
        raise SettingsError(["CONFERRAL_ENV=production has no demo; run: conferral org create NAME"])
    runtime = wiring.build(settings)
    try:
        made = tenancy.ensure_demo(runtime)
    finally:
        runtime.database.dispose()
    if as_json:
        click.echo(json.dumps(asdict(made)))
        return
    for name, value in asdict(made).items():
        click.echo(f"{name:<16} {value or '(shown at the first start)'}")
