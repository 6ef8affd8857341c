# SPDX-License-Identifier: Apache-2.0
"""One running house a database for all trials; a trial that needs other settings builds its own.

`house` is shared: a test opens a `Ledger` on it, breaks something, and leaves it healthy for the next one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from support import chaos_house
from support.chaos_house import DATABASES, House

HERE = Path(__file__).parent
_SECONDS_TO_HEAL = 60.0


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker for faults of one database."""
    config.addinivalue_line("markers", "only_on(kind): a fault that only this database can have")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every trial on each database that is asked for; some faults one of them cannot have."""
    asked = metafunc.config.option.chaos_database
    if "database" in metafunc.fixturenames:
        only = [kind for marker in metafunc.definition.iter_markers("only_on") for kind in marker.args]
        able = only or DATABASES
        by_name = able[zlib.crc32(metafunc.function.__name__.encode()) % len(able)]
        wanted = {"both": DATABASES, "alternate": (by_name,)}.get(asked, (asked,))
        kinds = [kind for kind in wanted if kind in able]
        metafunc.parametrize("database", kinds, scope="session", indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here as chaos."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The number from which all chances are drawn."""
    return int(request.config.option.seed)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the long forms are asked for."""
    return bool(request.config.option.long)


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> str:
    """`sqlite` or `postgresql`."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared_house(database: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Yield the house of this database; it runs until the last test of the database has ended."""
    with chaos_house.house(database, tmp_path_factory.mktemp(f"house-{database}"), seed=seed) as found:
        yield found


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    """Yield the shared house in good health, and bring it back to it."""
    shared_house.until_ready(seconds=_SECONDS_TO_HEAL)
    yield shared_house
    shared_house.points.disarm()
    for peer in (shared_house.mails, shared_house.hooks):
        if peer.faults:
            peer.use()


@pytest.fixture
def own_house(database: str, seed: int, tmp_path: Path) -> Callable[..., AbstractContextManager[House]]:
    """Return a builder of houses with other settings, as in `own_house(proxied=("redis",))`."""

    def build(**options: Any) -> AbstractContextManager[House]:
        return chaos_house.house(database, tmp_path / "house", seed=seed, **options)

    return build
