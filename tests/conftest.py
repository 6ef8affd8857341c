# SPDX-License-Identifier: Apache-2.0
"""Every test process has a data directory of its own and no Redis unless the test starts one.

The options of the chaos suite are here, because pytest reads options from the outermost conftest only.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest

_folder = tempfile.TemporaryDirectory(prefix="conferral-test-")
for _name in [name for name in os.environ if name.startswith("CONFERRAL_")]:
    if not _name.startswith(("CONFERRAL_TEST_", "CONFERRAL_REQUIRE_")):
        del os.environ[_name]
os.environ["CONFERRAL_DATA_DIR"] = _folder.name
os.environ["CONFERRAL_REDIS_URL"] = "redis://127.0.0.1:1"  # nothing listens on port 1

CHAOS = Path(__file__).parent / "chaos"
DATABASES = ("sqlite", "postgresql")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the options of the chaos suite."""
    group = parser.getgroup("chaos")
    group.addoption("--seed", type=int, help="replay a trial: its ledger names the seed (default: random)")
    group.addoption("--storm", type=int, help="how many credentials the storm is about")
    group.addoption("--long", action="store_true", help="the long forms: kills by the thousand")
    group.addoption(
        "--chaos-database",
        choices=(*DATABASES, "both", "alternate"),
        default="alternate" if os.environ.get("CONFERRAL_TEST_CHAOS") == "1" else "both",
        help="alternate: each trial on one of them, by its name; half the time, for every change",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed once, so that every test process has the same."""
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1_000_000)


def pytest_report_header(config: pytest.Config) -> str:
    """Name the seed, so that what failed can be replayed."""
    return f"chaos: --seed {config.option.seed}{' --long' if config.option.long else ''}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all chaos of one database to one process: its house is built once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByDatabase(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            kinds = [kind for kind in DATABASES if kind in nodeid.partition("[")[2]]
            if "tests/chaos/" in nodeid and kinds:
                return f"chaos on {kinds[0]}"
            return str(super()._split_scope(nodeid))

    return ByDatabase(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave chaos out of the daily loop: it runs when it is asked for, by name or by variable."""
    if collection_path != CHAOS or os.environ.get("CONFERRAL_TEST_CHAOS") == "1":
        return None
    asked = any("chaos" in argument for argument in config.args) or "chaos" in (config.option.markexpr or "")
    return None if asked else True
