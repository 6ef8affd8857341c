# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

from conferral.cli import processes
from conferral.settings import ROLES, Settings
from conferral.wiring import routing_of


def test_every_pool_of_the_routing_is_started_as_it_says(tmp_path: Path) -> None:
    """The command line keeps its own light table, so that it need not import Celery; the two are one."""
    settings = Settings.from_env({"CONFERRAL_DATA_DIR": str(tmp_path)})
    ours = [
        (pool.name, pool.queue, pool.kind, getattr(settings, pool.slots), pool.hard_limit_seconds)
        for pool in processes.POOLS
    ]
    theirs = [
        (pool.name, pool.queue, pool.kind, pool.slots, pool.hard_limit_seconds)
        for pool in routing_of(settings).pools
    ]
    assert ours == theirs
    assert {pool.name for pool in processes.POOLS} <= set(ROLES)
