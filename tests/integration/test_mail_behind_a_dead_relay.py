# SPDX-License-Identifier: Apache-2.0
"""20,000 mails wait for a relay that is down: looking at it again costs a probe, not 20,000 rows.

The real dispatcher, executor, services and SMTP client on both databases; the relay refuses every
connection after a while, and the clock is moved from one probe to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text

from conferral import wiring
from conferral.reliable import tables
from conferral.reliable.bell import Bundle
from conferral.reliable.dispatcher import Dispatcher
from conferral.reliable.holding import Holding
from conferral.reliable.ids import new_run_id
from conferral.reliable.promises import BULK
from conferral.reliable.task import MAX_BUNDLE, Executor
from conferral.services.emailing import TASK
from conferral.settings import Settings
from conferral.store import tables as product_tables
from conferral.tasks.celery_app import TASKS
from support.fake_smtp import FakeSmtp, reply
from support.product import Product, product_on
from support.reliable_database import RecordingBell

WAITING = 20_000
PERIODS = 5
SLOTS = 4
CHUNK = 2_000
HANGS_SECONDS = 0.5  # each connection, before it is refused: the others are rung meanwhile
MEGABYTE = 1024**2


class ExecutingBell(RecordingBell):
    """A bell that has what it rings executed at once, by a few threads, as a worker does."""

    def __init__(self, executor: Executor, pool: ThreadPoolExecutor) -> None:
        super().__init__()
        self._executor, self._pool = executor, pool
        self.under_way: list[Future[object]] = []

    def ring_bundles(self, bundles: Sequence[Bundle]) -> list[str]:
        """Hand the runs to the pool."""
        for one in bundles:
            self.under_way.append(self._pool.submit(self._executor.execute, one.task, list(one.run_ids)))
        return []

    def is_idle(self) -> bool:
        """Return whether everything that was rung is executed; raise what a thread raised."""
        done, pending = wait(self.under_way, timeout=0.05)
        for one in done:
            one.result()
        self.under_way = list(pending)
        return not pending


class Ringer(Dispatcher):
    """A dispatcher without a broker."""

    def _length(self, _: str) -> int:
        return 0


@dataclasses.dataclass(frozen=True)
class Size:
    """What the waiting has cost so far."""

    claims: int
    attempts: int
    bytes: int
    connections: int


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_database_does_not_grow_when_mails_wait_for_a_dead_relay(kind: str, tmp_path: Path) -> None:
    """A snooze leaves no row: the history grows by the probes, and a few runs are claimed to look."""
    refuses = reply("421 4.3.2 closing", delay_seconds=HANGS_SECONDS)
    with (
        FakeSmtp(chances={"connect": [(refuses, 1.0)]}) as relay,
        product_on(kind, tmp_path) as product,
        _mailing(product, relay),
    ):
        _fill(product)
        seen = [_size(product, relay)]
        with ThreadPoolExecutor(SLOTS) as pool:
            for _ in range(PERIODS):
                _look(product, pool)
                seen.append(_size(product, relay))
                product.time.move_to(_closed_until(product) + timedelta(seconds=1))
        _print(kind, seen)
        waiting = product.rows(tables.runs, tables.runs.c.task == TASK)
        assert {row.state for row in waiting} <= {"PENDING", "RETRY"}
        first, last = seen[2], seen[-1]
        assert last.attempts - first.attempts <= last.connections - first.connections <= PERIODS
        if kind == "sqlite":
            assert last.bytes - first.bytes < MEGABYTE / 4
        # PostgreSQL keeps a moved row's old place until a vacuum: two copies of what waits, never three.
        assert last.bytes < 2 * seen[0].bytes
        assert last.claims - first.claims <= (PERIODS - 2) * SLOTS * MAX_BUNDLE
        for row in waiting[:50]:
            assert len(product.outcomes(row.id)) == row.attempt - row.snoozes


def test_mails_go_out_when_the_relay_is_back(tmp_path: Path) -> None:
    """What waited for the probe alone is due at once when it succeeds, and not two minutes later."""
    refuses = reply("421 4.3.2 closing")
    with (
        FakeSmtp(faults={"connect": [refuses] * 8}) as relay,
        product_on("sqlite", tmp_path) as product,
        _mailing(product, relay),
        ThreadPoolExecutor(SLOTS) as pool,
    ):
        _fill(product, 200)
        _look(product, pool)
        assert relay.history.accepted() == []
        for _ in range(4):  # at most this many probes fail; those that failed wait for their retry
            product.time.move_to(_closed_until(product) + timedelta(seconds=1))
            _look(product, pool)
            if _closed_until(product) is None:
                break
        retried = product.rows(tables.attempts, tables.attempts.c.outcome == "retry")
        assert len(relay.history.accepted()) >= 200 - len({row.run_id for row in retried})


def _look(product: Product, pool: ThreadPoolExecutor) -> None:
    """Let everything happen that happens until the channel is next looked at."""
    context = dataclasses.replace(
        wiring.context_of(product.settings, product.rt), record_pauses_seconds=(0.0,)
    )
    ringer = Ringer(None, context, TASKS, "x")  # type: ignore[arg-type]
    bell = ExecutingBell(Executor(context, TASKS, Holding(context)), pool)
    ringer._bell = bell
    while ringer.sweep() or not bell.is_idle() or _is_anything_due(product):
        pass


def _is_anything_due(product: Product) -> bool:
    due = (tables.UNRUNG, tables.runs.c.task == TASK, tables.runs.c.due_at <= product.time())
    with product.rt.database.snapshot() as session:
        return session.execute(select(tables.runs.c.id).where(*due).limit(1)).first() is not None


def _closed_until(product: Product) -> Any:
    (channel,) = product.rows(product_tables.channels)
    return channel.closed_until


def _size(product: Product, relay: FakeSmtp) -> Size:
    if product.rt.database.engine.dialect.name == "sqlite":
        size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    else:
        product.rt.database.vacuum()  # autovacuum does it, some time later
        size = "SELECT pg_database_size(current_database())"
    with product.rt.database.snapshot() as session:
        claims = session.execute(
            select(func.sum(tables.runs.c.attempt)).where(tables.runs.c.task == TASK)
        ).scalar_one()
        attempts = session.execute(select(func.count()).select_from(tables.attempts)).scalar_one()
        taken = session.execute(text(size)).scalar_one()
    return Size(int(claims or 0), attempts, taken, relay.history.connections)


def _print(kind: str, seen: Sequence[Size]) -> None:
    lines = [
        f"  after period {period}: {one.claims:>6,} claims  {one.attempts:>4,} attempts  "
        f"{one.bytes / MEGABYTE:7.2f} MB  {one.connections} connections"
        for period, one in enumerate(seen)
    ]
    print(f"\n{kind}: {WAITING:,} mails wait", *lines, sep="\n")  # noqa: T201 - the figures


@contextmanager
def _mailing(product: Product, relay: FakeSmtp) -> Iterator[None]:
    """Let the product's live mail go to the relay."""
    environ = {
        "CONFERRAL_DATA_DIR": str(product.settings.data_dir),
        "CONFERRAL_SMTP_HOST": "127.0.0.1",
        "CONFERRAL_SMTP_PORT": str(relay.port),
        "CONFERRAL_SMTP_TLS": "none",
        "CONFERRAL_MAIL_FROM": "Registry <registry@uni.example>",
    }
    sends = wiring.build(Settings.from_env(environ, role="mail"))
    sends.database.dispose()
    mails = {"has_mail_server": True, "live_mailer": sends.live_mailer, "mail_from": sends.mail_from}
    product.use(dataclasses.replace(product.rt, **mails))
    product.caller = dataclasses.replace(product.caller, mode="live")
    try:
        yield
    finally:
        assert sends.live_mailer is not None
        sends.live_mailer.close()


def _fill(product: Product, count: int = WAITING) -> None:
    """Let one credential owe as many mails as a whole batch does."""
    accepted = product.request(issue=False)
    now = product.time()
    common = {
        "organisation_id": product.caller.organisation_id, "mode": "live", "channel": "email",
        "kind": "issued", "credential_id": accepted.credential_id, "recipient": "ada@example.com",
        "locale": "en", "state": "pending", "possible_duplicate": False, "created_at": now,
    }  # fmt: skip
    run = {
        "task": TASK, "queue": wiring.routing_of(product.settings).queue_of(TASK), "priority": BULK,
        "state": "PENDING", "due_at": now, "created_at": now, "bundle_key": "mail:live",
        "tenant": product.caller.organisation_id, "subject": accepted.credential_id,
    }  # fmt: skip
    for start in range(0, count, CHUNK):
        ids = [(f"dlv_{number:05}", new_run_id()) for number in range(start, min(start + CHUNK, count))]
        with product.rt.database.transaction() as session:
            session.execute(
                insert(product_tables.deliveries),
                [
                    common | {"id": one, "run_id": run_id, "message_id": f"<{one}@x>", "revision": number}
                    for number, (one, run_id) in enumerate(ids, start)
                ],
            )
            session.execute(insert(tables.runs), [run | {"id": run_id, "args": [one]} for one, run_id in ids])
