# SPDX-License-Identifier: Apache-2.0
"""What `conferral doctor` looks at: each check yields findings and changes nothing.

A check may be slow or fail; the doctor reports that as a finding and goes on with the next.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from conferral.cli import process_identity, processes, redis_checks
from conferral.cli.database_trouble import recognised
from conferral.cli.findings import Finding, bad, good, warning
from conferral.cli.health import OLD_AFTER_SECONDS
from conferral.cli.supervisor import STATUS_FILE
from conferral.settings import Settings, running

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Below this a batch of PDFs fills the disk within the hour.
LEAST_FREE_RATIO = 0.1
LEAST_FREE_BYTES = 1_000_000_000
ANSWER_SECONDS = 5.0
# More than this apart, a host would steal the leases of others.
MOST_SKEW_SECONDS = 5.0
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs")
_LOCAL_HOSTS = {"127.0.0.1", "::1", "localhost"}


def versions(_settings: Settings) -> Iterator[Finding]:
    """Python and the libraries whose faults we know."""
    python = ".".join(map(str, sys.version_info[:3]))
    celery, kombu = version("celery"), version("kombu")
    if celery == "5.7.0":
        fix = "install what the lock names: ./run install"
        yield bad("versions", "Celery 5.7.0 ends its workers when Redis goes away", fix)
    else:
        yield good("versions", f"Python {python}, Celery {celery}, kombu {kombu}")


def data_directory(settings: Settings) -> Iterator[Finding]:
    """Private, writable, with room, and on a disk of this machine."""
    folder = settings.data_dir
    if not folder.is_dir():
        yield bad("data", f"{folder} does not exist yet", "conferral up makes it")
        return
    if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield bad("data", f"{folder} can be read by others", f"chmod 700 {folder}")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield bad("data", f"{folder} is on a file system that is mounted read-only", "mount it for writing")
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        owner = f"run as the user that owns it (user id {folder.stat().st_uid})"
        yield bad("data", f"{folder} cannot be written by this user", owner)
        return
    usage = shutil.disk_usage(folder)
    if usage.free < min(LEAST_FREE_BYTES, usage.total * LEAST_FREE_RATIO):
        yield bad(
            "data", f"{usage.free / 1e9:.1f} GB are left on its disk", "make room, or move the directory"
        )
    else:
        yield good("data", f"{folder}, {usage.free / 1e9:.0f} GB free")
    kind = _file_system(folder)
    if settings.database_url.startswith("sqlite") and kind.startswith(_NETWORK_FILE_SYSTEMS):
        fix = "move CONFERRAL_DATA_DIR to a local disk, or use PostgreSQL"
        yield bad("data", f"SQLite on a network file system ({kind}) loses data", fix)


def keys(settings: Settings) -> Iterator[Finding]:
    """Key files are there and private."""
    files = {"CONFERRAL_MASTER_KEY_FILE": settings.master_key_file}
    files["CONFERRAL_SECRETS_KEY_FILE"] = settings.secrets_key_file
    for name, path in files.items():
        try:
            is_there = path.exists()
        except OSError as error:
            yield bad("keys", f"{name} names {path}: {error.strerror}", "run as the user that owns it")
            continue
        if not is_there:
            if path.parent == settings.keys_dir:
                yield good("keys", f"{path.name} is made when it is first needed")
            else:
                yield bad(
                    "keys", f"{name} names {path}, which is not there", "put the key back from your backup"
                )
        elif path.stat().st_mode & stat.S_IRWXO:
            yield bad("keys", f"{path} can be read by everybody", f"chmod 600 {path}")
        else:
            yield good("keys", f"{path.name} is private")


def database(settings: Settings) -> Iterator[Finding]:
    """It answers, is migrated, and its clock is ours."""
    from sqlalchemy.exc import SQLAlchemyError

    from conferral.store import migrate
    from conferral.store.engine import open_engine

    kind, _, place = settings.database_url.partition(":///")
    if kind == "sqlite" and not Path(place).exists():
        yield bad("database", f"there is no file {place} yet", "conferral migrate")
        return
    kind = kind.partition(":")[0]
    engine = open_engine(settings.database_url, pool_size=1, application="conferral-doctor")
    try:
        with engine.connect() as connection:
            is_current = migrate.is_current(connection)
            if is_current:
                yield good("database", f"{kind}, at this version's schema")
            elif migrate.is_newer(connection):
                fix = "run the version that migrated it, or restore the backup from before the upgrade"
                yield bad("database", f"{kind} was migrated by a later version", fix)
            else:
                yield bad("database", f"{kind} is not at this version's schema", "conferral migrate")
            if kind != "sqlite":
                yield from _postgres(settings, connection)
    except SQLAlchemyError as error:
        trouble = recognised(error)
        yield bad("database", f"{kind}: {trouble.says}", trouble.cure)
    finally:
        engine.dispose()


def redis(settings: Settings) -> Iterator[Finding]:
    """The broker and the server of results."""
    if not settings.broker_url:
        yield bad("redis", "no broker is known", "run `conferral up`, or set CONFERRAL_REDIS_URL")
        return
    for url in dict.fromkeys(
        url.rpartition("/")[0] or url for url in (settings.broker_url, settings.result_url) if url
    ):
        if url.startswith("amqp"):
            yield warning("redis", "RabbitMQ as a broker is experimental", "use Redis or Valkey")
        else:
            yield from redis_checks.findings(url)


def routing(_settings: Settings) -> Iterator[Finding]:
    """Every task has a route, every routed queue a pool, every schedule entry a task."""
    # Importing it is the check; it refuses with a sentence that names the culprit.
    from conferral.tasks.celery_app import ROUTING, TASKS

    yield good("routing", f"{len(TASKS)} tasks, {len(ROUTING.queues)} queues, {len(ROUTING.pools)} pools")


def mail(settings: Settings) -> Iterator[Finding]:
    """The relay can be reached and greets."""
    if not settings.smtp_host:
        yield good("mail", "captured: no CONFERRAL_SMTP_HOST; read it with `conferral mailbox`")
        return
    place = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        with socket.create_connection((settings.smtp_host, settings.smtp_port), ANSWER_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            greets = settings.smtp_tls == "tls" or connection.recv(4) == b"220 "
    except OSError as error:
        yield bad(
            "mail",
            f"{place} cannot be reached: {error.strerror or error}",
            "see CONFERRAL_SMTP_HOST, _PORT, _TLS",
        )
        return
    if greets:
        yield good("mail", f"{place} greets")
    else:
        yield bad(
            "mail",
            f"{place} does not greet like a mail server",
            "see CONFERRAL_SMTP_PORT and CONFERRAL_SMTP_TLS",
        )


def exposure(settings: Settings) -> Iterator[Finding]:
    """What can be reached from outside has a proxy before it."""
    if settings.http_host not in _LOCAL_HOSTS:
        fix = "put nginx or Caddy before it; half-sent requests of strangers would block every thread"
        yield warning("exposure", f"the web server listens on {settings.http_host}", fix)
    if settings.is_production and not settings.trusted_proxies:
        fix = "name the proxy in CONFERRAL_TRUSTED_PROXIES, or every visitor has its address"
        yield warning("exposure", "no proxy is trusted", fix)
    wide = [str(network) for network in settings.webhook_allow_cidrs if not network.is_loopback]
    if wide:
        fix = "keep only what your own endpoints need"
        yield warning("exposure", f"webhooks may reach {', '.join(wide)}", fix)


def running_processes(settings: Settings) -> Iterator[Finding]:
    """What the supervisor of this data directory says, and the signs of life."""
    if not running.is_running(settings.data_dir):
        yield warning(
            "processes", "no `conferral up` runs on this data directory", "./run, or start each process alone"
        )
        return
    rows = json.loads((settings.run_dir / STATUS_FILE).read_text())["processes"]
    for row in rows:
        if row["state"] in {"failing", "waiting"}:
            fix = f"read {settings.logs_dir / row['name']}.log"
            yield bad("processes", f"{row['name']} is {row['state']}, {row['restarts']} restarts", fix)
    alive = [row for row in rows if row["pid"] and process_identity.start_time(row["pid"]) == row["started"]]
    yield good("processes", f"{len(alive)} run")
    for pool in processes.POOLS:
        path = processes.alive_file(settings, pool.name)
        if path.exists() and time.time() - path.stat().st_mtime > OLD_AFTER_SECONDS:
            yield bad(
                "processes",
                f"{pool.name} gives no sign of life",
                "it is restarted after a minute; see its log",
            )


ALL = (
    versions,
    data_directory,
    keys,
    database,
    redis,
    routing,
    mail,
    exposure,
    running_processes,
)


def _postgres(settings: Settings, connection: Connection) -> Iterator[Finding]:
    from sqlalchemy import text

    most = int(connection.execute(text("show max_connections")).scalar_one())
    theirs = connection.execute(text("select clock_timestamp()")).scalar_one()
    skew = abs((datetime.now(UTC) - theirs).total_seconds())
    if skew > MOST_SKEW_SECONDS:
        yield bad("clock", f"this host and PostgreSQL are {skew:.0f} s apart", "start a time service on both")
    else:
        yield good("clock", f"{skew:.1f} s from PostgreSQL's")
    pools = sum(getattr(settings, pool.slots) + 2 for pool in processes.POOLS)
    needed = pools + settings.web_workers * 10 + 20
    if needed > most:
        fix = f"raise max_connections to {needed + 20}, or put PgBouncer before it"
        yield bad("database", f"all processes together may want {needed} of its {most} connections", fix)


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds a folder; empty where /proc does not tell."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    mounts = {line.split()[1].replace("\\040", " "): line.split()[2] for line in lines}
    for parent in (folder.resolve(), *folder.resolve().parents):
        if str(parent) in mounts:
            return mounts[str(parent)]
    return ""
