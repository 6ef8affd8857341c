# SPDX-License-Identifier: Apache-2.0
"""Processes that change one status list at once: writers that admit and revoke, publishers that sign.

    python -m support.status_writer write < task.json   prints what it did, as JSON
    python -m support.status_writer publish             signs what is due until stdin ends, then the rest

Both use the database of the environment, the real clock and no Redis.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from conferral import wiring
from conferral.domain.status_change import REVOKE
from conferral.reliable.holding import Holding
from conferral.reliable.rescue import rescue_expired
from conferral.reliable.tables import CLAIMABLE, runs
from conferral.reliable.task import Executor, Unclaimed, burials
from conferral.services import admission, changing_status
from conferral.services.admission import Admitted, Wanted
from conferral.services.runtime import Caller, Runtime
from conferral.services.status_lists import PUBLISH_TASK
from conferral.settings import Settings
from conferral.store.engine import Database
from conferral.store.queries import credentials
from conferral.tasks import process
from conferral.tasks.celery_app import TASKS

ADMITTED_AT_ONCE = 10  # a small batch a commit, so that writers meet often
LOOK_SECONDS = 0.1
RESCUE_SECONDS = 5.0
TRIES = 20  # a database that is locked for longer than it waits


def main(job: str) -> None:
    """Do one job in this process."""
    settings = Settings.from_env(os.environ, role="hp")
    built = wiring.build(settings)
    built.database.dispose()
    database = Database(settings.database_url, routing=wiring.routing_of(settings), pool_size=2)
    rt = dataclasses.replace(built, database=database)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        done = _write(rt, json.load(sys.stdin)) if job == "write" else _publish(rt, settings)
    finally:
        database.dispose()
    sys.stdout.write(json.dumps(done) + "\n")


def _write(rt: Runtime, wanted: dict[str, Any]) -> dict[str, Any]:
    """Admit credentials and revoke others, in turns; return counts and the slowest commit."""
    caller = Caller(wanted["organisation_id"], wanted["mode"], "test", frozenset())
    with rt.database.snapshot() as session:
        template = admission.find_template(session, caller.organisation_id, "diploma")
    checked = admission.check(rt, template.design, Wanted(**wanted["credential"]))
    assert isinstance(checked, Admitted)
    left, ids = wanted["allocate"], list(wanted["revoke"])
    each = -(-len(ids) * ADMITTED_AT_ONCE // left)
    done: dict[str, Any] = {"admitted": 0, "revoked": 0, "again": 0, "waited": 0, "slowest_ms": 0}

    def admit(session: Any) -> int:
        count = min(ADMITTED_AT_ONCE, left - done["admitted"])
        rows = admission.rows(rt, session, caller, template, [checked] * count)
        return len(credentials.add_all(session, rows))

    while done["admitted"] < left or ids:
        if done["admitted"] < left:
            done["admitted"] += _commit(rt, done, admit)
        for credential_id in ids[:each]:
            is_new = _commit(
                rt, done, lambda session, one=credential_id: changing_status.change(
                    rt, session, caller, REVOKE, one
                ).is_new,
            )  # fmt: skip
            done["revoked" if is_new else "again"] += 1
        del ids[:each]
    return done


def _commit(rt: Runtime, done: dict[str, Any], work: Callable[[Any], Any]) -> Any:
    for _ in range(TRIES):
        began = time.monotonic()
        try:
            with rt.database.transaction() as session:
                found = work(session)
        except OperationalError:
            done["waited"] += 1
            continue
        done["slowest_ms"] = max(done["slowest_ms"], round((time.monotonic() - began) * 1000))
        return found
    raise AssertionError(f"the database was locked {TRIES} times in a row")


def _publish(rt: Runtime, settings: Settings) -> dict[str, Any]:
    process.runtime.adopt(rt)
    executor = Executor(wiring.context_of(settings, rt), TASKS, Holding(wiring.context_of(settings, rt)))
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    executed = waited = 0
    quiet_until = time.monotonic() + 3600
    while time.monotonic() < quiet_until:
        try:
            due, done = _sign_due(rt, executor)
        except (OperationalError, Unclaimed):
            waited += 1  # a worker's message would be put back, and a lost run rescued
            time.sleep(LOOK_SECONDS)
            continue
        executed += done
        if due or not ended.is_set():
            # Nothing is due after the last change for longer than two signatures are apart.
            quiet_until = time.monotonic() + (2.5 if ended.is_set() else 3600)
        elif quiet_until > time.monotonic() + 2.5:
            quiet_until = time.monotonic() + 2.5
        time.sleep(LOOK_SECONDS)
    return {"runs": executed, "waited": waited}


def _sign_due(rt: Runtime, executor: Executor) -> tuple[bool, int]:
    """Rescue now and then, and execute what is due; return whether anything was, and the attempts made."""
    if time.monotonic() % RESCUE_SECONDS < LOOK_SECONDS:
        with rt.database.transaction() as session:
            rescue_expired(session, burials(TASKS))
    with rt.database.snapshot() as session:
        due = session.execute(
            select(runs.c.id).where(
                CLAIMABLE, runs.c.task == PUBLISH_TASK, runs.c.due_at <= rt.database.now()
            )
        ).scalars().all()  # fmt: skip
    done = [executor.execute(PUBLISH_TASK, [run_id]) for run_id in due]
    return bool(due), sum(map(len, done))


if __name__ == "__main__":
    main(sys.argv[1])
