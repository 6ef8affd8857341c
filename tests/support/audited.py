# SPDX-License-Identifier: Apache-2.0
"""A product that has lived through everything once, and copies of it to damage and to audit."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import text

from conferral import wiring
from conferral.adapters.blobs import Blobs
from conferral.domain import status_change
from conferral.domain.audit import CHECKS, Deviation, Remark, Tally
from conferral.reliable.beat import due_slots
from conferral.reliable.dead_letters import Filter
from conferral.reliable.promises import BULK, promise
from conferral.reliable.testing import FrozenTime, crash_at
from conferral.services import auditing, batching, operations, tenancy
from conferral.services.admission import Wanted, find_template
from conferral.services.auditing import Audit
from conferral.services.runtime import Runtime
from conferral.store.engine import Database
from conferral.tasks.celery_app import TASKS, app
from support import statuses
from support.fake_webhook import FakeWebhook, status
from support.product import A_WEEK, Product, product_on

LIMITS = {name: task.policy.max_attempts for name, task in TASKS.items()}
PLAIN = 24
MAGIC = ("chain-timeout", "bad-data", "bounce", "smtp-timeout", "crash-after-email", "poison")
BEAT_MINUTES = 50


@dataclass
class Copy:
    """A copy of a product's database and files."""

    rt: Runtime
    settings: Any

    def write(self, statement: str, **values: Any) -> int:
        """Damage it by one statement; return how many rows it hit."""
        with self.rt.database.engine.begin() as connection:
            return connection.execute(text(statement), values).rowcount

    def ask(self, statement: str, **values: Any) -> Sequence[Any]:
        """Return rows."""
        with self.rt.database.snapshot() as session:
            return session.execute(text(statement), values).all()

    def file(self, digest: str) -> Path:
        """Return the path of a stored file."""
        return self.settings.data_dir / "blobs" / digest[:2] / digest

    def audited(self, *only: str, **options: Any) -> tuple[list[Deviation], list[Remark], Tally]:
        """Audit it; return what was found."""
        return audited(self.rt, self.settings, *only, **options)


def audited(
    rt: Runtime, settings: Any, *only: str, **options: Any
) -> tuple[list[Deviation], list[Remark], Tally]:
    """Audit a product as the command does; return deviations, remarks and counts."""
    schedules = {name: entry["schedule"] for name, entry in wiring.schedule_of(settings).items()}
    asked = Audit(rt, frozenset(only or CHECKS), **{"limits": LIMITS, "schedules": schedules, **options})
    found = list(auditing.findings(asked))
    deviations = [one for one in found if isinstance(one, Deviation)]
    remarks = [one for one in found if isinstance(one, Remark)]
    assert asked.tally.deviations == len(deviations)
    return deviations, remarks, asked.tally


@contextlib.contextmanager
def healthy_on(kind: str, folder: Path) -> Iterator[Product]:
    """Yield a product with some forty credentials: retries, losses, failures, replays, changed standings.

    Its trail is sealed but for the last few attempts; one credential waits to be issued.
    """
    with product_on(kind, folder) as product, FakeWebhook(answers=(status(503), status(500))) as receiver:
        with product.rt.database.transaction() as session:
            tenancy.create_organisation(product.rt, session, "Another School")
        product.subscribe(receiver.url)
        product.time.move(120)
        _live(product)
        beat(product, BEAT_MINUTES)
        for name in ("chain-timeout", "bad-data"):  # attempts that no block has sealed yet
            product.request(f"{name}+unsealed@test.invalid")
        product.run(patience_seconds=300)
        product.request("waiting@example.com")
        yield product


def beat(product: Product, minutes: int) -> None:
    """Let time pass as under a Beat that leads: every minute, what is due is promised and executed."""
    for _ in range(minutes):
        with product.rt.database.transaction() as session:
            for slot in due_slots(app, product.time()):
                promise(session, slot.task, [], key=slot.key, priority=BULK, subject=slot.entry)
        product.run()
        product.time.move(60)


def _live(product: Product) -> None:
    for number in range(PLAIN):
        product.request(f"p{number}@example.com")
    for name in MAGIC:
        product.request(f"{name}@test.invalid")
    product.run(patience_seconds=A_WEEK)
    with crash_at("http.answered"):
        product.request("lost-webhook@example.com")
        product.run()
    product.run(patience_seconds=600)
    _batch(product)
    with product.rt.database.transaction() as session:
        replayed = operations.replay(product.rt, session, product.caller, Filter())
    assert len(replayed) > 2
    product.run(patience_seconds=A_WEEK)
    _change_standings(product)
    product.time.move(300)
    product.run(patience_seconds=3_600)


def _batch(product: Product) -> None:
    with product.rt.database.transaction() as session:
        template = find_template(session, product.caller.organisation_id, "diploma")
        rows = [
            batching.Row(
                number,
                Wanted(
                    template="diploma",
                    recipient_name=f"Person {number}",
                    recipient_email=f"b{number}@example.com",
                    fields={"course": "Databases"},
                ),
            )
            for number in range(1, 7)
        ]
        batching.create(product.rt, session, product.caller, template, rows, name="class")
    product.run(patience_seconds=60)


def _change_standings(product: Product) -> None:
    statuses.suspendable_template(product)
    revoked = statuses.issued(product, email="revoked@example.com")
    paused = statuses.issued(product, email="paused@example.com", template=statuses.SUSPENDABLE)
    statuses.change(product, status_change.REVOKE, revoked)
    for verb in (status_change.SUSPEND, status_change.REINSTATE, status_change.SUSPEND):
        statuses.change(product, verb, paused)
        product.time.move(5)
        product.run(patience_seconds=30)
    old = statuses.issued(product, email="old@example.com")
    statuses.correct(product, old, recipient_name="Another Name")
    product.run(patience_seconds=60)


@contextlib.contextmanager
def copy_of_healthy(kind: str, folder: Path) -> Iterator[Copy]:
    """Yield a copy of a healthy product's database and files; the product is made once a test session."""
    made = _made.get(kind) or _made.setdefault(kind, _make(kind))
    data = folder / "copy"
    shutil.copytree(made.folder, data)
    with contextlib.ExitStack() as stack:
        if kind == "sqlite":
            url = f"sqlite:///{data / 'copied.sqlite3'}"
        else:
            url = _copied_database(made.settings.database_url)
            stack.callback(_drop, url)
        settings = dataclasses.replace(made.settings, data_dir=data, database_url=url)
        time = FrozenTime(made.rt.database.now())
        database = Database(url, routing=wiring.routing_of(settings), clock=time)
        stack.callback(database.dispose)
        yield Copy(dataclasses.replace(made.rt, database=database, blobs=Blobs(data / "blobs")), settings)


@dataclass(frozen=True)
class _Made:
    rt: Runtime
    settings: Any
    folder: Path


_made: dict[str, _Made] = {}


def _make(kind: str) -> _Made:
    """Make a healthy product and keep a copy of it: the next product of this session empties its database."""
    folder = Path(tempfile.mkdtemp(prefix="conferral-healthy-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name, healthy_on(kind, Path(name)) as product:
        shutil.copytree(product.settings.data_dir / "blobs", folder / "blobs")
        product.rt.database.dispose()  # nobody may be connected to a database that is copied
        url = product.settings.database_url
        if kind == "sqlite":
            with (
                contextlib.closing(sqlite3.connect(url.partition("///")[2])) as source,
                contextlib.closing(sqlite3.connect(folder / "copied.sqlite3")) as copy,
            ):
                source.backup(copy)
        else:
            url = _copied_database(url)
            atexit.register(_drop, url)
        return _Made(product.rt, dataclasses.replace(product.settings, database_url=url), folder)


def _copied_database(url: str) -> str:
    """Copy a PostgreSQL database beside itself; return the copy's URL."""
    import psycopg
    from psycopg import sql

    parts = urlsplit(url)
    name = f"copy_{secrets.token_hex(6)}"
    with psycopg.connect(_beside(url), autocommit=True) as connection:
        names = sql.Identifier(name), sql.Identifier(parts.path.removeprefix("/"))
        connection.execute(sql.SQL("create database {} template {}").format(*names))
    return urlunsplit(parts._replace(path=f"/{name}"))


def _drop(url: str) -> None:
    import psycopg
    from psycopg import sql

    name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    with psycopg.connect(_beside(url), autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))


def _beside(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path="/template1"))
