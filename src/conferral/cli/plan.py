# SPDX-License-Identifier: Apache-2.0
"""What `conferral up` runs: every process with its readiness, its patience and its place in the order.

Pure description; `up` executes it. The order of starting is Redis, migrate, web, everything else; of
stopping: Beat, web and streams, all workers at once, Flower, Redis.
"""

from __future__ import annotations

import dataclasses
import http.client
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from conferral.cli import ports, processes, redis_server
from conferral.cli.child import Patience, Spec
from conferral.cli.processes import POOLS, Pool, Program
from conferral.cli.supervisor import Stage
from conferral.settings import Settings

# A busy worker ends its task; what is cut after 25 s comes back through its message or its lease.
WORKER_PATIENCE = Patience(quit_after=25, kill_after=30)
# gunicorn's own grace is 10 s.
WEB_PATIENCE = Patience(kill_after=12)
SHORT_PATIENCE = Patience(kill_after=5)
# Redis writes its last second to disk.
REDIS_PATIENCE = Patience(kill_after=10)
ONE_SHOT_PATIENCE = Patience(kill_after=10)
_ASK_SECONDS = 1.0
_OK = 200

STOP_ORDER = (
    Stage(("beat",), patience=2),
    Stage(("web", "streams"), patience=4),
    Stage(tuple(pool.name for pool in POOLS)),
    Stage(("flower",), shares_deadline=False),
    Stage(("redis",), shares_deadline=False),
)


def redis(settings: Settings, configuration: Path, program: redis_server.Program) -> Spec:
    """Our own Redis."""
    folder = settings.data_dir / "redis"

    def mend(last_lines: Sequence[str]) -> str | None:
        aside = redis_server.set_unreadable_aside(folder, last_lines, datetime.now(UTC))
        if aside is None:
            return None
        return f"Redis could not read its file; it is in {aside} now, and Redis starts empty: nothing is lost"

    return Spec(
        name="redis",
        command=(str(program.path), str(configuration)),
        environ=processes.environment(settings, "cli"),
        patience=REDIS_PATIENCE,
        is_ready=lambda: redis_server.answers(settings.redis_url),
        is_essential=True,
        repair=mend,
    )


def migrate(settings: Settings) -> Spec:
    """Bring the database to this version, then end."""
    return _spec(
        "migrate",
        processes.subcommand(settings, "migrate"),
        patience=ONE_SHOT_PATIENCE,
        is_essential=True,
        is_one_shot=True,
    )


def demo(settings: Settings) -> Spec:
    """Make the demo organisation, answer with its login and key, then end."""
    return _spec(
        "demo",
        processes.subcommand(settings, "demo", "--json"),
        patience=ONE_SHOT_PATIENCE,
        is_one_shot=True,
        keeps_reply=True,
    )


def web(settings: Settings) -> Spec:
    """Pages and API."""
    return _spec(
        "web",
        processes.web(settings, "web"),
        patience=WEB_PATIENCE,
        is_ready=_healthz(settings, settings.http_port),
        is_essential=True,
    )


def others(settings: Settings) -> list[Spec]:
    """Everything that nobody waits for: streams, workers, Beat, Flower."""
    streams = _spec(
        "streams",
        processes.web(settings, "streams"),
        patience=WEB_PATIENCE,
        is_ready=_healthz(settings, settings.stream_port),
    )
    beat = _alive("beat", processes.beat(settings), SHORT_PATIENCE, settings)
    flower = _spec(
        "flower",
        processes.flower(settings),
        patience=SHORT_PATIENCE,
        is_ready=lambda: ports.is_open("127.0.0.1", settings.flower_port),
    )
    workers = [
        dataclasses.replace(
            _alive(pool.name, processes.worker(settings, pool), WORKER_PATIENCE, settings),
            examiner=_examiner(settings, pool),
        )
        for pool in POOLS
    ]
    return [streams, *workers, beat, flower]


def wanted_ports(settings: Settings) -> list[ports.Wanted]:
    """Return every port that must be free before anything starts."""
    host = settings.http_host
    return [
        ports.Wanted("pages and API", host, settings.http_port, "CONFERRAL_HTTP_PORT"),
        ports.Wanted("live streams", host, settings.stream_port, "CONFERRAL_STREAM_PORT"),
        ports.Wanted("metrics", host, settings.metrics_port, "CONFERRAL_METRICS_PORT"),
        ports.Wanted("Flower", "127.0.0.1", settings.flower_port, "CONFERRAL_FLOWER_PORT"),
    ]


def _examiner(settings: Settings, pool: Pool) -> Spec:
    """Who looks into the database whether a suspected pool is deaf."""
    command = (sys.executable, "-P", "-m", "conferral.cli.deafness", pool.name)
    program = Program(command, processes.environment(settings, "cli"))
    return _spec(f"{pool.name}-ears", program, patience=ONE_SHOT_PATIENCE, is_one_shot=True)


def _alive(name: str, program: Program, patience: Patience, settings: Settings) -> Spec:
    path = processes.alive_file(settings, name)
    return _spec(
        name,
        program,
        patience=patience,
        is_ready=path.exists,
        alive_file=path,
        # Without its broker a consumer's timer stands still; a restart would not bring the broker back.
        may_judge=lambda: redis_server.may_answer(settings.broker_url),
    )


def _spec(
    name: str,
    program: Program,
    *,
    patience: Patience,
    is_ready: Callable[[], bool] | None = None,
    alive_file: Path | None = None,
    is_essential: bool = False,
    is_one_shot: bool = False,
    keeps_reply: bool = False,
    may_judge: Callable[[], bool] | None = None,
) -> Spec:
    return Spec(
        name=name,
        command=program.command,
        environ=program.environ,
        patience=patience,
        is_ready=is_ready,
        alive_file=alive_file,
        is_essential=is_essential,
        is_one_shot=is_one_shot,
        keeps_reply=keeps_reply,
        may_judge=may_judge,
    )


def _healthz(settings: Settings, port: int) -> Callable[[], bool]:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.http_host, settings.http_host)  # noqa: S104
    # The application answers to the name it is known by.
    headers = {"Host": urlsplit(settings.public_url).netloc}

    def ask() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=_ASK_SECONDS)
        try:
            connection.request("GET", "/healthz", headers=headers)
            return connection.getresponse().status == _OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask
