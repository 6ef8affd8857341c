# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from conferral.cli import redis_server
from support.postgres import postgres_server
from support.redis import redis_process


def test_postgres_is_empty_and_answers_when_a_test_asks_for_one() -> None:
    """Every test gets a database of its own."""
    import psycopg

    with postgres_server() as url, psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from pg_stat_user_tables").fetchone()
        assert row == (0,)


def test_redis_keeps_its_address_when_it_is_killed_and_started_again() -> None:
    """A test may crash Redis and bring it back under the same URL."""
    with redis_process() as server:
        url = server.url
        server.kill()
        assert not redis_server.answers(url)
        server.start()
        assert redis_server.answers(url)
