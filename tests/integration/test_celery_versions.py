# SPDX-License-Identifier: Apache-2.0
"""Why Celery 5.7.0 is refused: its workers end when Redis goes away while a late-acknowledged task runs.

The requirement and the locks exclude it, and the fault itself is made here, under the Celery that is
installed. With 5.7.0 (and kombu 5.7.0) in its place the same two tests fail: on losing its connection that
version closes it, and the message of the task that ended meanwhile is acknowledged on the closed channel:
`AttributeError: 'NoneType' object has no attribute 'hostname'`, "Unrecoverable error", and the worker's main
process ends with status 1, forking and with threads alike. An upgrade has to pass this file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from conferral.reliable.tables import SUCCESS
from support.reliable_stand import Stand, stand

REFUSED = Version("5.7.0")
WORKS_SECONDS = "2"
AGAIN_SECONDS = 40.0
"""Celery tries to reach Redis after 2, 4, 6 s and so on."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def house() -> Iterator[Stand]:
    """Return a stand without workers."""
    with stand() as found:
        yield found


def test_requirement_refuses_the_version_and_takes_the_installed_one() -> None:
    """What is declared, in the checkout and in the package, and what is installed agree."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for said in (declared, requires("conferral") or []):
        (celery,) = (found for one in said if (found := Requirement(one)).name == "celery")
        assert REFUSED not in celery.specifier
        assert Version(version("celery")) in celery.specifier


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_names_a_version_that_is_allowed(lock: str) -> None:
    """Nobody installs the refused one from a lock; what is locked is what is tested here."""
    locked = re.findall(r"^celery(?:\[[a-z,]+\])?==([\w.]+)", (ROOT / lock).read_text(), re.MULTILINE)
    assert [Version(one) for one in locked] == [Version(version("celery"))]
    assert Version(locked[0]) != REFUSED


@pytest.mark.parametrize("pool", ["fork", "wait"])
def test_worker_survives_when_redis_is_gone_at_the_end_of_a_late_acknowledged_task(
    house: Stand, pool: str
) -> None:
    """The same process goes on: what ran has ended once, and what is sent later is executed."""
    worker = house.worker(pool)
    if pool == "fork":
        house.worker("wait")  # whose dispatcher rings again
    during = house.promise(f"{pool}.slow", "during", WORKS_SECONDS)
    house.until(lambda: house.effects(during))
    house.redis.kill()
    house.until_state(during, SUCCESS)
    house.redis.start()
    after = house.promise(f"{pool}.mark", "after")
    house.until_state(after, SUCCESS, seconds=AGAIN_SECONDS)
    assert worker.process.poll() is None, worker.log
    assert house.outcomes(during) == ["success"]
    assert "Unrecoverable error" not in worker.log
