# SPDX-License-Identifier: Apache-2.0
"""`conferral up`: everything on this machine under one supervisor, ready in seconds, stopped by Ctrl-C.

It checks first (settings, data directory, ports, Redis) and starts nothing while something is wrong. It
never opens the database; what needs it runs in a short-lived process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from conferral.cli import banner, deafness, plan, ports, processes, redis_server, supervisor
from conferral.cli.child import READY
from conferral.cli.findings import GOOD
from conferral.cli.output import Output
from conferral.settings import Settings, key_files, running
from conferral.settings.rules import DEMO_FILE

UNAVAILABLE = 8
# Another command only looks at the lock for an instant.
_LOCK_SECONDS = 1.0
_LOCK_PAUSE_SECONDS = 0.05


@click.command()
@click.option("--host", help="Address to listen on; CONFERRAL_HTTP_HOST.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Port of pages and API; CONFERRAL_HTTP_PORT.")
def up(host: str | None, port: int | None) -> int:
    """Run everything here under one supervisor; Ctrl-C stops it."""
    began = time.monotonic()
    if host is not None:
        os.environ["CONFERRAL_HTTP_HOST"] = host
    if port is not None:
        os.environ["CONFERRAL_HTTP_PORT"] = str(port)
    settings = processes.prepared("up")
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(_lock(settings.run_dir / running.LOCK_NAME)):
            return _refuse([f"another `conferral up` runs on {settings.data_dir}; stop it, or use another"])
        colour = "NO_COLOR" not in os.environ
        output = Output(settings.logs_dir, sys.stderr, colour=colour)
        stack.callback(output.close)
        return _up(settings, output, began)


def _up(settings: Settings, output: Output, began: float) -> int:
    supervisor.end_leftovers(settings.run_dir, output)
    processes.forget_counters(settings)
    if problems := [*ports.taken(plan.wanted_ports(settings)), *_unusable(settings.broker_url, output)]:
        return _refuse(problems)
    if os.geteuid() == 0:
        output.say("running as root works, but a user of its own is safer", level="warning")
    boss = supervisor.Supervisor(settings.run_dir, output)
    boss.install_signals()
    try:
        settings = _start_redis(settings, boss)
        running.publish(settings.data_dir, _for_other_shells(settings))
        demo = _start_rest(settings, boss)
        late = [name for name, state in boss.states().items() if state != READY]
        _print_banner(settings, demo, late, time.monotonic() - began)
        listens = settings.broker_url.startswith("redis://")
        boss.run(deafness.Ears(settings.broker_url).suspects if listens else None)
    except redis_server.RedisMissingError as error:
        return _refuse([str(error)])
    except supervisor.StartFailedError as error:
        output.say(str(error), level="error")
        return UNAVAILABLE
    except supervisor.InterruptedStartError:
        output.say("stopping before everything was up")
    finally:
        boss.stop_all(plan.STOP_ORDER)
        (settings.run_dir / running.FILE_NAME).unlink(missing_ok=True)
        processes.forget_counters(settings)
    return 0


def _start_redis(settings: Settings, boss: supervisor.Supervisor) -> Settings:
    """Use the Redis that is named, or start our own; return the settings with its address."""
    if settings.broker_url:
        return settings
    program = redis_server.find()
    password = key_files.read_or_create_password(settings.keys_dir / "redis.password")
    port = redis_server.free_port(redis_server.first_port(settings.data_dir))
    configuration = settings.run_dir / "redis.conf"
    text = redis_server.configuration(port, password, settings.data_dir / "redis")
    redis_server.write_configuration(configuration, text)
    url = f"redis://:{password}@127.0.0.1:{port}"
    settings = dataclasses.replace(
        settings, redis_url=url, broker_url=f"{url}/0", result_url=settings.result_url or f"{url}/1"
    )
    boss.start_all([plan.redis(settings, configuration, program)])
    return settings


def _unusable(url: str, output: Output) -> Iterator[str]:
    """Yield why somebody else's Redis cannot be used; say what may be mended while we run."""
    if not url or url.startswith("amqp"):
        return
    from conferral.cli import redis_checks

    for finding in redis_checks.findings(url):
        if finding.stops:
            yield f"Redis: {finding.detail}; {finding.fix}"
        elif finding.state != GOOD:
            output.say(f"Redis: {finding.detail}; {finding.fix}", level="warning")


def _start_rest(settings: Settings, boss: supervisor.Supervisor) -> Mapping[str, str]:
    boss.start_all([plan.migrate(settings)])
    boss.start_all([plan.web(settings)])
    if settings.is_production:
        boss.start_all(plan.others(settings))
        return {}
    boss.start_all([plan.demo(settings), *plan.others(settings)])
    return _remember_demo(settings.keys_dir / DEMO_FILE, boss.reply_of("demo"))


def _remember_demo(path: Path, reply: bytes) -> dict[str, str]:
    """Keep what is shown only once, so that the next start can show it again."""
    kept: dict[str, str] = {}
    for text in (_read(path), reply.decode(errors="replace")):
        with contextlib.suppress(ValueError):
            found = json.loads(text)
            kept.update({name: str(value) for name, value in found.items() if value})
    if kept:
        path.unlink(missing_ok=True)
        key_files.write_once(path, json.dumps(kept, indent=1) + "\n")
    return kept


def _print_banner(settings: Settings, demo: Mapping[str, str], late: list[str], seconds: float) -> None:
    in_checkout = Path("run").is_file() and Path("pyproject.toml").is_file()
    ready = banner.Ready(
        seconds=seconds,
        console_url=settings.public_url,
        flower_url=f"http://127.0.0.1:{settings.flower_port}",
        flower_user=processes.FLOWER_USER,
        flower_password=processes.flower_password(settings),
        data_dir=settings.data_dir,
        demo=demo,
        late=late,
    )
    text = banner.lines(
        ready,
        colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        command="./run" if in_checkout else "conferral",
        example="examples/graduates.csv" if Path("examples/graduates.csv").is_file() else "graduates.csv",
    )
    # Somebody may have closed the terminal; the processes go on.
    with contextlib.suppress(OSError):
        sys.stdout.write("\n".join(text) + "\n")
        sys.stdout.flush()


def _for_other_shells(settings: Settings) -> dict[str, str]:
    """Return what other commands on this data directory need in order to find us."""
    mine = {name: value for name, value in os.environ.items() if name.startswith("CONFERRAL_") and value}
    for name in ("CONFERRAL_DATA_DIR", "CONFERRAL_ROLE", "CONFERRAL_CRASH_AT", "CONFERRAL_REQUIRE_ALL"):
        mine.pop(name, None)
    if settings.redis_url:
        mine["CONFERRAL_REDIS_URL"] = settings.redis_url
    return mine


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Hold the data directory; yields False when another supervisor has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(_LOCK_PAUSE_SECONDS)
            else:
                yield True
                return
    finally:
        os.close(descriptor)


def _refuse(problems: list[str]) -> int:
    for problem in problems:
        sys.stderr.write(f"conferral: {problem}\n")
    return UNAVAILABLE


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
