# SPDX-License-Identifier: Apache-2.0
"""A house to break: a real installation with real settings, its peers as programs, and hands on all of it.

`with house("postgresql", folder, seed=1) as h: h.client.issue(20); h.until_final(…)`. Nothing is shortened:
leases, heartbeats, pools and retries are those of production. Only the mode is `development`, because
production refuses crash points and webhooks to loopback.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import Engine, Row, create_engine, func, make_url, select
from sqlalchemy.sql import Select

from conferral.domain.credential import UNFINISHED
from conferral.reliable.tables import LIVE_STATES, attempts, runs
from conferral.store.tables import credentials
from support import chaos_peers, chaos_processes
from support.chaos_client import Accepted, AcceptedBatch, Client
from support.chaos_peers import Peer
from support.chaos_points import Armory
from support.chaos_processes import Processes
from support.chaos_proxy import Proxy
from support.installation import Installation, installed
from support.postgres import postgres_server
from support.redis import RedisProcess, redis_process

DATABASES = ("sqlite", "postgresql")
_LEAVE_SECONDS = 40.0  # a worker's patience and a little
_MANY = 500  # bound parameters of one statement: SQLite's limit is far above


@dataclass
class House:
    """An installation and everything around it."""

    kind: str
    folder: Path
    seed: int
    database_url: str
    installation: Installation
    client: Client
    mails: Peer
    hooks: Peer
    processes: Processes
    points: Armory
    engine: Engine
    database_proxy: Proxy | None = None
    redis_proxy: Proxy | None = None
    redis_process: RedisProcess | None = None
    began: float = field(default_factory=time.time)

    def issue(self, count: int, **options: Any) -> list[Accepted]:
        """Ask for credentials in parallel; see `Client.issue`."""
        return self.client.issue(count, **options)

    def issue_batch(self, rows: int | Sequence[dict[str, Any]], **fields: Any) -> AcceptedBatch:
        """Ask for a batch; see `Client.issue_batch`."""
        return self.client.issue_batch(rows, **fields)

    def rows(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        """Read on a snapshot of the true database; nothing can be written this way."""
        with self.engine.connect() as connection:
            return connection.execute(statement).all()

    def ids_of(self, batch: AcceptedBatch) -> list[str]:
        """Return the credentials of a batch so far."""
        found = self.rows(select(credentials.c.id).where(credentials.c.batch_id == batch.batch_id))
        return [row.id for row in found]

    def until_final(self, what: Iterable[Accepted | AcceptedBatch], seconds: float) -> float:
        """Wait until every credential and every run that is about one is final; return the seconds."""
        wanted = list(what)
        return chaos_processes.until(
            lambda: not self.unfinished(wanted), seconds, lambda: self.explain(self.unfinished(wanted))
        )

    def unfinished(self, what: Iterable[Accepted | AcceptedBatch]) -> list[str]:
        """Return what is not final: credentials, live runs about them, rows of batches without one."""
        ids = [one.credential_id for one in what if isinstance(one, Accepted)]
        missing: list[str] = []
        for batch in (one for one in what if isinstance(one, AcceptedBatch)):
            mine = credentials.c.batch_id == batch.batch_id
            done = select(func.count()).where(mine, credentials.c.state.not_in(UNFINISHED))
            live = select(runs.c.id).where(runs.c.group_key == batch.batch_id, runs.c.state.in_(LIVE_STATES))
            if self.rows(done)[0][0] < batch.rows or self.rows(live.limit(1)):
                missing.append(batch.batch_id)
        for part in in_parts(ids):
            found = {row.id: row.state for row in self.rows(
                select(credentials.c.id, credentials.c.state).where(credentials.c.id.in_(part)))}  # fmt: skip
            missing += [each for each in part if found.get(each, UNFINISHED[0]) in UNFINISHED]
            live = select(runs.c.id).where(runs.c.subject.in_(part), runs.c.state.in_(LIVE_STATES))
            missing += [row.id for row in self.rows(live)]
        return missing

    def explain(self, ids: Sequence[str]) -> str:
        """Return what is known about unfinished things, for a failing test."""
        known: list[Sequence[str]] = [ids[:20]]
        for one in ids[:8]:
            columns = (runs.c.id, runs.c.task, runs.c.state, runs.c.attempt, runs.c.due_at, runs.c.rung_at,
                       runs.c.error_code, runs.c.lease_owner)  # fmt: skip
            found = self.rows(
                select(*columns).where(
                    (runs.c.id == one) | (runs.c.subject == one) | (runs.c.group_key == one),
                    runs.c.state.in_(LIVE_STATES),
                )
            )
            known += [[str(tuple(row)) for row in found]]
        states = {name: row["state"] for name, row in self.installation.status().items()}
        said = self.installation.log()[-6000:]
        return f"{len(ids)} unfinished\n{json.dumps(known, indent=1)}\n{states}\n{said}"

    def outcomes(self, run_id: str) -> list[str]:
        """Return the outcomes of a run's attempts in order."""
        statement = select(attempts.c.outcome).where(attempts.c.run_id == run_id)
        return [row.outcome for row in self.rows(statement.order_by(attempts.c.number))]

    def redis(self) -> Redis:
        """Return a client of the true Redis, past any proxy; close it."""
        if self.redis_process is not None:
            return Redis.from_url(f"{self.redis_process.url}/0")
        return self.installation.redis()

    @contextlib.contextmanager
    def heir(self, pool: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one more worker of a pool, beside the supervisor's; its log is scanned like the others."""
        own = {name: value for name, value in self.installation.environ.items() if name[-5:] != "_PORT"}
        with (self.installation.folder / "logs" / f"heir-{pool}.log").open("ab") as log:
            command = self.installation.command("worker", pool)
            process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_LEAVE_SECONDS)

    def until_ready(self, *names: str, seconds: float = 60.0) -> float:
        """Wait until these processes (all, if none is named) are ready; return the seconds."""

        def unready() -> dict[str, object]:
            with contextlib.suppress(ValueError, OSError):
                found = self.installation.status()
                return {
                    name: row["state"]
                    for name, row in found.items()
                    if (not names or name in names) and row["state"] not in {"ready", "done"}
                }
            return {"supervisor.json": "unreadable"}

        return chaos_processes.until(lambda: not unready(), seconds, unready)


@contextlib.contextmanager
def house(
    kind: str,
    folder: Path,
    *,
    seed: int,
    proxied: Sequence[str] = (),
    database_url: str | None = None,
    data: Path | None = None,
    keys: int = 2,
    **variables: str,
) -> Iterator[House]:
    """Yield a running house; everything that it started is ended afterwards.

    Args:
        kind: `sqlite` or `postgresql`.
        folder: an empty folder of its own.
        seed: of the peers' chances.
        proxied: `redis`, `database`: put a proxy (and a Redis of the test's own) before it.
        database_url: a server of the caller's instead of one of ours, such as one that can be restarted.
        data: the data directory, if it lies on a disk of its own; it is made.
        keys: how many API keys the client has; each may write 600 times a minute.
        variables: settings, such as CONFERRAL_EMAIL_ON_AMBIGUOUS="hold".
    """
    with contextlib.ExitStack() as stack:
        data, points = data or folder / "data", folder / "points"
        for one in (data, points):
            one.mkdir(mode=0o700, parents=True)
        true_url = database_url or _database(kind, data, stack)
        own: dict[str, str] = {}
        database_proxy = redis_proxy = server = None
        if kind == "postgresql":
            own["CONFERRAL_DATABASE_URL"] = true_url
            if "database" in proxied:
                database_proxy = stack.enter_context(Proxy(make_url(true_url).port or 5432))
                own["CONFERRAL_DATABASE_URL"] = database_proxy.url(true_url)
        if "redis" in proxied:
            server = stack.enter_context(redis_process())
            redis_proxy = stack.enter_context(Proxy(server.port))
            own["CONFERRAL_REDIS_URL"] = redis_proxy.url(server.url)
        mails, hooks = chaos_peers.mail_relay(folder, seed), chaos_peers.webhook_receiver(folder, seed + 1)
        for peer in (mails, hooks):
            stack.callback(peer.stop)
            peer.start()
        own |= {
            "CONFERRAL_SMTP_HOST": "127.0.0.1",
            "CONFERRAL_SMTP_PORT": str(mails.port),
            "CONFERRAL_SMTP_TLS": "none",
            "CONFERRAL_MAIL_FROM": "Registry <registry@uni.example>",
            "CONFERRAL_CRASH_AT": str(points),
        }
        installation = stack.enter_context(installed(data, **(own | variables)))
        engine = create_engine(_read_only(true_url))
        stack.callback(engine.dispose)
        client = Client(lambda: installation.ports[0], [_live_key(installation) for _ in range(keys)])
        body = {"url": f"http://127.0.0.1:{hooks.port}/hook"}
        status, endpoint, _ = client.call("POST", "/v1/webhook-endpoints", body, key="chaos-endpoint")
        assert status == 201, endpoint
        hooks.use(options=("--secret", endpoint["secret"]))
        yield House(
            kind, folder, seed, true_url, installation, client, mails, hooks,
            Processes(installation, true_url), Armory(points), engine, database_proxy, redis_proxy, server,
        )  # fmt: skip


def _database(kind: str, data: Path, stack: contextlib.ExitStack) -> str:
    if kind == "postgresql":
        return stack.enter_context(postgres_server())
    return f"sqlite:///{data}/conferral.db"


def _read_only(url: str) -> str:
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite":
        return f"sqlite:///file:{parts.database}?mode=ro&uri=true&timeout=15"
    return parts.set(
        drivername="postgresql+psycopg", query={"options": "-c default_transaction_read_only=on"}
    ).render_as_string(hide_password=False)


def _live_key(installation: Installation) -> str:
    done = installation.run("keys", "create", "--live", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return str(json.loads(done.stdout)["key"])


def in_parts(ids: Sequence[str]) -> Iterator[list[str]]:
    """Return ids in parts that fit one statement."""
    for start in range(0, len(ids), _MANY):
        yield list(ids[start : start + _MANY])
