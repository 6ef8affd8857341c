# SPDX-License-Identifier: Apache-2.0
"""Each process alone: `conferral api`, `streams`, `worker POOL`, `beat`, `flower`, `migrate`.

They check the settings, then become the program; systemd and containers signal the real process.
"""

from __future__ import annotations

import click

from conferral.cli import processes
from conferral.domain.problems import Problem


@click.command()
def api() -> None:
    """Run pages and API alone, on CONFERRAL_HTTP_PORT."""
    processes.web(processes.prepared("web"), "web").become()


@click.command()
def streams() -> None:
    """Run live streams and metrics alone, on CONFERRAL_STREAM_PORT and CONFERRAL_METRICS_PORT."""
    processes.web(processes.prepared("streams"), "streams").become()


@click.command()
@click.argument("pool", type=click.Choice([pool.name for pool in processes.POOLS]))
def worker(pool: str) -> None:
    """Run one pool of workers alone."""
    processes.worker(processes.prepared(pool), processes.pool_named(pool)).become()


@click.command()
def beat() -> None:
    """Run the clock of the schedules alone; of several, one fires."""
    processes.beat(processes.prepared("beat")).become()


@click.command()
def flower() -> None:
    """Run Flower alone, on loopback, read-only, behind its generated password."""
    processes.flower(processes.prepared("flower")).become()


@click.command()
def migrate() -> None:
    """Bring the database to this version; safe to run twice and on several hosts at once."""
    from conferral.store.engine import open_engine
    from conferral.store.migrate import SchemaIsNewer, upgrade

    engine = open_engine(processes.prepared("cli").database_url, application="conferral-migrate")
    try:
        upgrade(engine)
    except SchemaIsNewer:
        detail = (
            "the database was migrated by a later version of Conferral; run that version, or restore the "
            "backup from before the upgrade"
        )
        raise Problem("database_unavailable", detail) from None
    finally:
        engine.dispose()
    click.echo("the database is at this version's schema", err=True)
