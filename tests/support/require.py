# SPDX-License-Identifier: Apache-2.0
"""What a test needs of the machine: skipped by name where absent, a failure where everything is required."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def program(name: str, enabled_by: str) -> str:
    """Return the path of a program, or skip saying which command installs it."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not on PATH", enabled_by)
    assert found is not None
    return found


def test_data() -> Path:
    """Return the folder of public test data, or skip saying which variable names it."""
    folder = os.environ.get("CONFERRAL_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        missing("the public test data is not here", "export CONFERRAL_TEST_DATA=<folder>")
    return Path(folder)


def missing(what: str, enabled_by: str) -> None:
    """Skip with the reason and its cure; fail where CONFERRAL_REQUIRE_ALL=1 promises everything."""
    message = f"{what}; enable it with: {enabled_by}"
    if os.environ.get("CONFERRAL_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)
