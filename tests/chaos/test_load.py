# SPDX-License-Identifier: Apache-2.0
"""Much at once: a batch and a crowd, many failures, many that wait; what a person does about it."""

from __future__ import annotations

import concurrent.futures
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select

from conferral.reliable.tables import FAILURE, RETRY, attempts, runs
from conferral.store.tables import credentials
from conferral.tasks.policy import ISSUE as ISSUE_POLICY
from support.chaos_client import Accepted, AcceptedBatch, Client, wanted
from support.chaos_curses import cursed
from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_measures import percentile, spread
from support.chaos_processes import until

ISSUE, MAIL = "tasks.issuance.issue_credential", "tasks.notifications.send_issuance_email"
CLIENTS = 50
FAIR_SECONDS = 2.0
"""What somebody waits for is issued within this, whatever a batch or another organisation has waiting."""
FINAL_SECONDS, LONG_SECONDS = 180.0, 3600.0
ALONE = 10
FORTY = 40
MOST_ATTEMPTS_OF_A_DEAD_RELAY = 24
"""Five failures close the channel, as many as threads are under way then, and a probe now and then."""


def test_herd(house: House, long: bool) -> None:
    """A batch and fifty clients at once: each is answered 202, or 429 with Retry-After; nothing is lost."""
    ledger, began = Ledger(house, "herd"), len(house.client.seconds)
    batch = house.issue_batch(2000 if long else 500)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda number: ask(house, number), range(CLIENTS * (20 if long else 3))))
    seconds = house.client.seconds[began:]
    alone = [one for one in ledger.accepted if isinstance(one, Accepted)]
    house.until_final(alone, FINAL_SECONDS)
    end(house, batch, long=long)
    counted = {status: sum(found == status for found, _ in answers) for status in (202, 429)}
    print(f"\n{CLIENTS} clients: {counted}; the API's p99 {percentile(seconds, 0.99):.3f} s")  # noqa: T201
    ledger.finish(failures=("cancelled",))
    assert sum(counted.values()) == len(answers), answers
    assert all(int(headers["Retry-After"]) > 0 for status, headers in answers if status == 429)


def test_fairness(house: House, long: bool) -> None:
    """During a big batch ten of the same, then ten of another organisation: each issued within 2 s."""
    ledger = Ledger(house, "fairness")
    other = another_organisation(house)
    batch = house.issue_batch(10_000 if long else 800)
    until(lambda: issued(house, batch), FINAL_SECONDS)
    mine = waited(house, house.client.issue(ALONE, threads=2))
    theirs = waited(house, other.issue(ALONE, threads=2))
    left = batch.rows - issued(house, batch)
    print(f"\nbeside {left} that wait: the same organisation {spread(mine)}; another one {spread(theirs)}")  # noqa: T201
    end(house, batch, long=long)
    ledger.finish(failures=("cancelled",))
    assert left > 0, "the batch was over before"
    assert max(*mine, *theirs) <= FAIR_SECONDS, (mine, theirs)


def test_replay(house: House, long: bool) -> None:
    """Dead letters by cause, previewed, replayed by two people at once: as many are sent as were counted."""
    ledger, count = Ledger(house, "replay"), 80 if long else 8
    house.mails.use("rcpt=550 5.7.1 refused")
    ids = [one.credential_id for one in house.issue(count)]
    until(lambda: len(parked(house, ids)) == count, FINAL_SECONDS)
    house.mails.use()
    before, dead = len(house.mails.seen()), parked(house, ids)
    operator = client(house, "--scope", "ops:read", "--scope", "ops:write")
    listed = operator.call("GET", "/v1/ops/dead-letters")[1]
    assert (MAIL, "mail_refused") in {(cause["task"], cause["code"]) for cause in listed["causes"]}
    these = {"task": MAIL, "code": "mail_refused", "task_ids": dead}
    previewed = replay(operator, these, preview=True)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        replayed = list(pool.map(lambda _: replay(operator, these)["replayed"], range(2)))
    house.until_final(ledger.accepted, FINAL_SECONDS)
    until(lambda: len(house.mails.seen()) - before >= count, FINAL_SECONDS)
    sent = house.mails.seen()[before:]
    print(f"\npreviewed {previewed['count']}, replayed {replayed}, sent {len(sent)}")  # noqa: T201
    account = ledger.finish()
    assert previewed["count"] == sum(replayed) == len(sent) == count
    assert len({mail["message_id"] for mail in sent}) == count
    assert account.repeated == 0


def test_cancel(house: House, long: bool) -> None:
    """Cancelled in the middle: after the answer nothing of the batch begins; what had begun is finished."""
    ledger = Ledger(house, "cancel")
    batch = house.issue_batch(2000 if long else 150)
    until(lambda: issued(house, batch) >= ALONE, FINAL_SECONDS)
    answered = cancel(house, batch)
    until(lambda: not house.unfinished([batch]), FINAL_SECONDS)
    late = house.rows(
        select(attempts.c.run_id, attempts.c.started_at)
        .join(runs, runs.c.id == attempts.c.run_id)
        .where(runs.c.group_key == batch.batch_id, runs.c.task == ISSUE, attempts.c.started_at > answered)
    )
    states = by_state(house, batch)
    print(f"\n{states}; begun after the answer: {len(late)}")  # noqa: T201 -- the figure
    ledger.finish(failures=("cancelled",))
    assert not late, late
    assert states["failed"] > 0
    assert states["issued"] + states["failed"] == batch.rows


def test_forty(house: House) -> None:
    """Forty failures at once come back one by one: their delays grow to a cap, and no two are alike."""
    ledger = Ledger(house, "forty")
    with cursed(house, "leaves", "forty-"):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: ask(house, number, f"forty-{number}-"), range(FORTY)))
        assert {status for status, _ in answers} == {202}
        ids = [one.credential_id for one in ledger.accepted if isinstance(one, Accepted)]
        until(lambda: len(delays(house, ids).get(2, ())) == FORTY, FINAL_SECONDS)
    found = delays(house, ids)
    for number, each in sorted(found.items()):
        ceiling = ISSUE_POLICY.ceilings_seconds[number - 1]
        told = " ".join(f"{one:.2f}" for one in sorted(each))
        print(f"\nattempt {number}, at most {ceiling:g} s: {told}", end="")  # noqa: T201 -- the figures
        assert len(set(each)) == len(each)
        assert max(each) <= ceiling
    assert sum(found[2]) / FORTY > sum(found[1]) / FORTY
    house.until_final(ledger.accepted, FINAL_SECONDS)
    ledger.finish(expected=("run_raised",))


def test_snooze(house: House, long: bool) -> None:
    """The relay is dead and mails wait: looking again costs a probe, not an attempt for each of them."""
    ledger = Ledger(house, "snooze")
    house.mails.stop()
    try:
        batch = house.issue_batch(5000 if long else 60)
        until(lambda: issued(house, batch) == batch.rows, LONG_SECONDS if long else FINAL_SECONDS)
        until(lambda: snoozed(house, batch), FINAL_SECONDS)
        first = counted_attempts(house, batch)
        time.sleep(120.0 if long else 5.0)
        last = counted_attempts(house, batch)
    finally:
        house.mails.start()
    print(f"\n{batch.rows} mails wait: {first} attempts, later {last}")  # noqa: T201 -- the figure
    house.until_final(ledger.accepted, LONG_SECONDS if long else FINAL_SECONDS)
    ledger.finish()
    assert last <= MOST_ATTEMPTS_OF_A_DEAD_RELAY, last


def ask(house: House, number: int, prefix: str = "herd-") -> tuple[int, dict[str, str]]:
    """Ask once; a 202 is kept as promised. Return status and headers."""
    key, began = f"{prefix}{number}-{time.time_ns()}", time.time()
    body = wanted(number, email=f"{prefix}{time.time_ns()}@example.com")
    status, answer, headers = house.client.call("POST", "/v1/credentials/issue", body, key=key)
    if status == 202:
        found = Accepted(answer["credential_id"], answer["task_id"], key, began, time.time(), 1)
        house.client.accepted.append(found)
    return status, headers


def another_organisation(house: House) -> Client:
    """Make an organisation of its own; return a client with its key."""
    made = house.installation.run("org", "create", f"Other {time.time_ns()}", "--json")
    assert made.returncode == 0, made.stderr
    return client(house, "--org", json.loads(made.stdout)["id"])


def client(house: House, *words: str) -> Client:
    """Return a client with a key that is made with these words."""
    key = house.installation.run("keys", "create", "--live", *words, "--json")
    assert key.returncode == 0, key.stderr
    return Client(house.client.port, [json.loads(key.stdout)["key"]])


def issued(house: House, batch: AcceptedBatch) -> int:
    """Return how many credentials of a batch are issued."""
    return by_state(house, batch).get("issued", 0)


def by_state(house: House, batch: AcceptedBatch) -> dict[str, int]:
    """Count a batch's credentials by state."""
    mine = credentials.c.batch_id == batch.batch_id
    counted = select(credentials.c.state, func.count()).where(mine).group_by(credentials.c.state)
    return {str(state): int(count) for state, count in house.rows(counted)}


def waited(house: House, accepted: Sequence[Accepted]) -> list[float]:
    """Return the seconds from each 202 until it was issued."""
    began = {one.credential_id: one.at for one in accepted}
    statement = select(credentials.c.id, credentials.c.issued_at).where(credentials.c.id.in_(began))

    def found() -> dict[str, datetime]:
        return {row.id: row.issued_at for row in house.rows(statement) if row.issued_at is not None}

    until(lambda: len(found()) == len(began), FINAL_SECONDS)
    return [at.timestamp() - began[one] for one, at in found().items()]


def end(house: House, batch: AcceptedBatch, *, long: bool) -> None:
    """Let a batch come to its end; in the short form what has not begun is cancelled."""
    if not long:
        with suppress(AssertionError):  # over by itself
            cancel(house, batch)
    house.until_final([batch], LONG_SECONDS if long else FINAL_SECONDS)


def cancel(house: House, batch: AcceptedBatch) -> datetime:
    """Cancel a batch over the API; return when the answer was here."""
    status, answer, _ = house.client.call("POST", f"/v1/batches/{batch.batch_id}/cancel", {})
    at = datetime.now(UTC)
    assert status == 202, answer
    return at


def parked(house: House, ids: Sequence[str]) -> list[str]:
    """Return the mails about some credentials that are dead letters."""
    mine = (runs.c.task == MAIL, runs.c.subject.in_(ids), runs.c.state == FAILURE)
    return [row.id for row in house.rows(select(runs.c.id).where(*mine))]


def replay(operator: Client, chosen: dict[str, Any], *, preview: bool = False) -> Any:
    """Replay over the API, as a person would who has clicked once; return the answer."""
    body = {"filter": chosen, "preview": preview}
    status, answer, _ = operator.call(
        "POST", "/v1/ops/dead-letters/replay", body, key=f"replay-{time.time_ns()}"
    )
    assert status == 200, answer
    return answer


def delays(house: House, ids: Sequence[str]) -> dict[int, list[float]]:
    """Return, by the number of the attempt that failed, how long each run was told to wait."""
    failed = (
        select(attempts.c.number, attempts.c.finished_at, attempts.c.next_due_at)
        .join(runs, runs.c.id == attempts.c.run_id)
        .where(runs.c.task == ISSUE, runs.c.subject.in_(ids), attempts.c.outcome == "retry")
    )
    found: dict[int, list[float]] = defaultdict(list)
    for row in house.rows(failed):
        found[row.number].append((row.next_due_at - row.finished_at).total_seconds())
    return found


def snoozed(house: House, batch: AcceptedBatch) -> bool:
    """Whether every mail of a batch waits for the channel."""
    waiting = select(func.count()).where(
        runs.c.group_key == batch.batch_id, runs.c.task == MAIL, runs.c.error_code.is_not(None)
    )
    return bool(house.rows(waiting.where(runs.c.state.in_((RETRY, "PENDING"))))[0][0])


def counted_attempts(house: House, batch: AcceptedBatch) -> int:
    """Return how many attempts the mails of a batch have left in the history."""
    mine = (runs.c.group_key == batch.batch_id, runs.c.task == MAIL)
    joined = attempts.join(runs, runs.c.id == attempts.c.run_id)
    return int(house.rows(select(func.count()).select_from(joined).where(*mine))[0][0])
