# SPDX-License-Identifier: Apache-2.0
"""What is done to a database now and then, on both."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.reliable_database import house_on


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_deleted_bytes_are_given_back_when_the_database_is_vacuumed(kind: str, tmp_path: Path) -> None:
    """On SQLite the write-ahead log is emptied, which it refuses inside a transaction."""
    with house_on(kind, tmp_path) as house:
        run_id = house.promise()
        log = tmp_path / "runs.db-wal"
        assert kind == "postgresql" or log.stat().st_size > 0
        house.database.vacuum()
        assert kind == "postgresql" or log.stat().st_size == 0
        assert len(house.claim(run_id)) == 1
