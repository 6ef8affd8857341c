# SPDX-License-Identifier: Apache-2.0
"""The whole product in one process: real database, files, renderer, signatures; only Redis is away.

The tasks are the real ones, executed through `run_inline`; the clock stands until it is moved.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from conferral import wiring
from conferral.adapters.captured_mail import CaptureMailer
from conferral.reliable import tables
from conferral.reliable.holding import Holding
from conferral.reliable.promises import BULK, promise
from conferral.reliable.rescue import rescue_expired
from conferral.reliable.task import Executor, burials
from conferral.reliable.testing import Executed, FrozenTime, run_inline
from conferral.services import issuing, mail_capture, subscribing, tenancy
from conferral.services.admission import Wanted
from conferral.services.issuing import Accepted
from conferral.services.runtime import Caller, Runtime
from conferral.settings import Settings, prepare_data_dir
from conferral.store import migrate
from conferral.store import tables as product_tables
from conferral.store.engine import Database
from conferral.tasks import process
from conferral.tasks.celery_app import TASKS
from support.postgres import postgres_server

DATABASES = ("sqlite", "postgresql")
A_WEEK = 7 * 86_400.0


@dataclass
class Product:
    """The product with one organisation, and short words for what tests do all the time."""

    rt: Runtime
    settings: Settings
    time: FrozenTime
    caller: Caller

    def use(self, rt: Runtime) -> None:
        """Go on with another runtime, for the tasks, too."""
        self.rt = rt
        process.runtime.adopt(rt)

    def request(self, email: str = "ada@example.com", **options: Any) -> Accepted:
        """Ask for one credential in a transaction of its own."""
        wanted = {
            "template": "diploma",
            "recipient_name": "Ada Lovelace",
            "recipient_email": email,
            "fields": {"course": "Applied Statistics"},
        }
        issue = options.pop("issue", True)
        with self.rt.database.transaction() as session:
            return issuing.request(self.rt, session, self.caller, Wanted(**(wanted | options)), issue=issue)

    def run(self, *, patience_seconds: float = 0.0) -> list[Executed]:
        """Execute everything that is due, and what becomes due, or is rescued, within the patience."""
        context = wiring.context_of(self.settings, self.rt)
        context = dataclasses.replace(context, record_pauses_seconds=(0.0,))
        last = self.time() + timedelta(seconds=patience_seconds)
        executed: list[Executed] = []
        while True:
            left = max((last - self.time()).total_seconds(), 0.0)
            executed += run_inline(context, TASKS, time=self.time, patience_seconds=left)
            leases = [row.lease_until for row in self.rows(tables.runs, tables.runs.c.state == "STARTED")]
            if not leases or min(leases) >= last:
                return executed
            self.time.move_to(max(self.time(), min(leases) + timedelta(seconds=1)))

    def run_only(self, task: str) -> None:
        """Rescue, then execute the due runs of one task, whatever else waits before them."""
        context = wiring.context_of(self.settings, self.rt)
        with self.rt.database.transaction() as session:
            rescue_expired(session, burials(TASKS))
        executor = Executor(context, TASKS, Holding(context))
        for row in self.runs_of(task):
            executor.execute(task, [row.id])

    def promise(self, task: str, *args: str) -> str:
        """Promise a run in a transaction of its own."""
        with self.rt.database.transaction() as session:
            return promise(session, task, list(args), priority=BULK)

    def rows_of_work(self) -> Sequence[Any]:
        """Return the runs that do somebody's work: all but the next signature of a status list."""
        return self.rows(tables.runs, tables.runs.c.task != "tasks.issuance.publish_status_list")

    def subscribe(self, url: str, *event_types: str) -> subscribing.NewEndpoint:
        """Add a webhook endpoint."""
        with self.rt.database.transaction() as session:
            return subscribing.add(self.rt, session, self.caller, url, event_types=event_types)

    def rows(self, table: Any, *conditions: Any) -> Sequence[Any]:
        """Return rows of a table in the order of its key."""
        with self.rt.database.snapshot() as session:
            ordered = select(table).where(*conditions).order_by(*table.primary_key.columns)
            return session.execute(ordered).all()

    def runs_of(self, task: str) -> Sequence[Any]:
        """Return the runs of one task."""
        return self.rows(tables.runs, tables.runs.c.task == task)

    def outcomes(self, run_id: str) -> list[str]:
        """Return the outcomes of a run's attempts in order."""
        return [row.outcome for row in self.rows(tables.attempts, tables.attempts.c.run_id == run_id)]

    def credential(self, credential_id: str) -> Any:
        """Return a credential's row."""
        (row,) = self.rows(product_tables.credentials, product_tables.credentials.c.id == credential_id)
        return row

    def mailbox(self) -> Sequence[Any]:
        """Return the captured mail."""
        return self.rows(product_tables.mailbox)


@contextlib.contextmanager
def product_on(kind: str, folder: Path, **variables: str) -> Iterator[Product]:
    """Yield the product on `sqlite` or `postgresql`, with an organisation in test mode."""
    environ = {**os.environ, "CONFERRAL_DATA_DIR": str(folder / "data"), **variables}
    if kind == "postgresql":
        environ["CONFERRAL_DATABASE_URL"] = _empty_postgres()
    settings = Settings.from_env(environ, role="hp")
    prepare_data_dir(settings)
    time = FrozenTime()
    rt = _runtime(settings, time)
    migrate.upgrade(rt.database.engine)
    process.runtime.adopt(rt)
    demo = tenancy.ensure_demo(rt)
    caller = Caller(demo.organisation_id, "test", "test", frozenset())
    try:
        yield Product(rt, settings, time, caller)
    finally:
        rt.renderer.close()
        rt.webhook_client.close()
        rt.database.dispose()


def _runtime(settings: Settings, time: FrozenTime) -> Runtime:
    """Return a runtime that holds the secrets of all roles, on a clock that stands."""
    signs = wiring.build(settings)
    tells = wiring.build(dataclasses.replace(settings, role="mail"))
    for unused in (signs.database, tells.database):
        unused.dispose()
    database = Database(settings.database_url, routing=wiring.routing_of(settings), clock=time, pool_size=20)
    return dataclasses.replace(
        signs,
        database=database,
        secrets_key=tells.secrets_key,
        pepper=tells.pepper,
        capture_mailer=CaptureMailer(mail_capture.saver(database)),
        linger_seconds=0.0,
    )


_servers = contextlib.ExitStack()
_url: list[str] = []


def _empty_postgres() -> str:
    """Return the URL of a PostgreSQL database without tables; the server runs once a test session."""
    if not _url:
        _url.append(_servers.enter_context(postgres_server()))
        atexit.register(_servers.close)
    database = Database(_url[0], routing=wiring.Routing((), ()))
    with database.engine.begin() as connection:
        # Dropping some thirty tables takes as long as the disk of a busy machine wants it to.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.dispose()
    return _url[0]
