# SPDX-License-Identifier: Apache-2.0
"""Relays and endpoints that refuse, drop, hang and answer wrongly: what follows, and what must not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from conferral.reliable.tables import FAILURE, RETRY, attempts, runs
from support import chaos_peers
from support.chaos_client import Accepted
from support.chaos_house import House
from support.chaos_ledger import Ledger
from support.chaos_measures import percentile
from support.chaos_peers import Peer
from support.chaos_processes import until

MAIL = "tasks.notifications.send_issuance_email"
HOOK = "tasks.webhooks.post_event"
SETTLED_SECONDS = 60.0
FINAL_SECONDS = 240.0
"""Greylisting waits a minute, and a channel that was closed a few times opens again after less."""
GREYLISTING = timedelta(seconds=60)
DEADLINE_SECONDS = 15.0
"""`delivery.md`: a webhook request ends within this, whatever the endpoint does."""
RETRY_AFTER = 20


def test_smtp_replies(house: House, long: bool) -> None:
    """4xx waits a minute, 421 slows down, 5xx is final at once with its reason; nothing is lost."""
    ledger, count = Ledger(house, "smtp_replies"), 40 if long else 4
    replies = {
        "rcpt=451 4.7.1 greylisted": (RETRY, "smtp_temporary"),
        "dot=452 4.3.1 out of space": (RETRY, "smtp_temporary"),
        "rcpt=550 5.1.1 no such user": (FAILURE, "mailbox_unknown"),
        "rcpt=550 5.7.1 refused": (FAILURE, "mail_refused"),
        "dot=554 5.6.0 refused": (FAILURE, "mail_refused"),
    }
    for fault, (state, code) in replies.items():
        house.mails.use(fault)
        found = settled(house, MAIL, house.issue(count), state)
        assert {row.error_code for row in found} == {code}, fault
        if state == FAILURE:
            assert {row.spent for row in found} == {1}, "a refusal for good is not repeated"
        else:
            assert min(row.due_at - ended(house, row.id) for row in found) >= GREYLISTING
    house.mails.use("mail=421 4.3.2 closing down")
    throttled = house.issue(count)
    until(lambda: "smtp_throttled" in codes(house, throttled), SETTLED_SECONDS)
    house.mails.use()
    house.until_final(ledger.accepted, FINAL_SECONDS)
    ledger.finish(failures=("mailbox_unknown", "mail_refused"))


def test_smtp_drops(house: House, long: bool) -> None:
    """Dropped before the dot: certainly not sent, and no repeat. After it: the same bytes again, excused."""
    ledger, count = Ledger(house, "smtp_drops"), 200 if long else 12
    house.mails.use("connect=drop@0.2", "data=drop@0.2", "body=drop@0.2")
    before = len(house.mails.seen())
    house.until_final(house.issue(count), FINAL_SECONDS)
    assert len(house.mails.seen()) - before == count, "a repeat arrived"
    house.mails.use("dot=drop@0.3")
    before = len(house.mails.seen())
    house.until_final(house.issue(count), FINAL_SECONDS)
    withheld = sum(not mail["answer"] for mail in house.mails.seen()[before:])
    account = ledger.finish()
    assert account.repeated <= withheld
    print(f"\n{withheld} answers withheld after the dot, {account.repeated} repeats")  # noqa: T201 -- the figure


def test_smtp_drops_when_a_person_decides(own_house: Callable[..., AbstractContextManager[House]]) -> None:
    """With `hold`, a mail whose end is unknown is never repeated: it waits for a person, with its reason."""
    with own_house(CONFERRAL_EMAIL_ON_AMBIGUOUS="hold") as house:
        ledger = Ledger(house, "smtp_drops, hold")
        house.mails.use("dot=drop")
        held = settled(house, MAIL, house.issue(6), FAILURE)
        assert {row.error_code for row in held} == {"email_outcome_unknown"}
        house.mails.use()
        house.until_final(house.issue(4), FINAL_SECONDS)
        account = ledger.finish(failures=("email_outcome_unknown",))
        assert account.repeated == 0


def test_webhook_replies(house: House, long: bool) -> None:
    """500, throttling, resets, drips: tried again, not sooner than asked, each request within 15 s."""
    ledger, count = Ledger(house, "webhook_replies"), 40 if long else 3
    secret = house.hooks.options
    faults = {
        "500": "endpoint_error",
        "301": "endpoint_error",
        "reset": "endpoint_unreachable",
        "drip_body": "endpoint_timeout",
    }
    if long:
        faults |= {
            "close": "endpoint_unreachable",
            "drip_headers": "endpoint_timeout",
            "hang": "endpoint_timeout",
        }
    for fault, code in faults.items():
        house.hooks.use(fault)
        accepted = house.issue(count)
        assert set(tried(house, HOOK, accepted).values()) == {code}, fault
        house.hooks.use()  # before the second try: after another failure the third may be minutes away
        house.until_final(accepted, FINAL_SECONDS)
    house.hooks.use("429", options=(*secret, "--retry-after", str(RETRY_AFTER)))
    accepted = house.issue(count)
    assert set(tried(house, HOOK, accepted).values()) == {"endpoint_throttled"}
    for row in of(house, HOOK, accepted):
        assert (row.due_at - ended(house, row.id)).total_seconds() >= RETRY_AFTER - 1
    house.hooks.use(options=secret)
    house.until_final(ledger.accepted, FINAL_SECONDS)
    ledger.finish()
    tries = house.rows(select(attempts).join(runs, runs.c.id == attempts.c.run_id).where(runs.c.task == HOOK))
    longest = max((row.finished_at - row.started_at).total_seconds() for row in tries if row.started_at)
    assert longest <= DEADLINE_SECONDS + 3, longest  # the connection's own 3 s come before


def test_webhook_endpoint_that_is_gone(house: House) -> None:
    """410 ends that endpoint's deliveries at once and disables it; the other endpoint is told as ever."""
    ledger = Ledger(house, "webhook_replies, 410")
    with receivers(house, 1, "410") as (gone,):
        accepted = house.issue(4)
        until(lambda: endpoint_state(house, gone.endpoint_id) == "disabled", SETTLED_SECONDS)
        house.until_final(accepted, FINAL_SECONDS)
        before = len(gone.peer.seen())
        house.until_final(house.issue(2), FINAL_SECONDS)
        assert len(gone.peer.seen()) == before, "a disabled endpoint was asked again"
    ledger.finish(failures=("endpoint_gone", "endpoint_disabled"))


def test_slow_endpoints(house: House, long: bool) -> None:
    """Eight endpoints that never answer delay themselves: the healthy one is told within 2x its usual."""
    ledger, count = Ledger(house, "slow_endpoints"), 200 if long else 12
    usual = told_after(house, house.issue(count))
    with receivers(house, 8, "hang"):
        beside = told_after(house, house.issue(count))
        ratio = percentile(beside, 0.95) / percentile(usual, 0.95)
        said = f"{ratio:.2f}x of {percentile(usual, 0.95):.2f} s"
        print(f"\np95 of the healthy endpoint beside 8 that hang: {said}")  # noqa: T201 -- the figure
    house.until_final(ledger.accepted, FINAL_SECONDS)
    ledger.finish(failures=("endpoint_disabled", "endpoint_gone", "cancelled"))
    assert ratio <= 2.0 or percentile(beside, 0.95) < 1.0, (usual, beside)


class Extra:
    """One more receiver, registered as an endpoint of the organisation."""

    def __init__(self, peer: Peer, endpoint_id: str) -> None:
        self.peer, self.endpoint_id = peer, endpoint_id


@contextmanager
def receivers(house: House, count: int, fault: str) -> Iterator[list[Extra]]:
    """Register more endpoints, each a program of its own; remove them at the end."""
    extras: list[Extra] = []
    try:
        for number in range(count):
            folder = house.folder / f"extra-{time.time_ns()}"
            folder.mkdir()
            peer = chaos_peers.webhook_receiver(folder, house.seed + 10 + number)
            peer.faults = (fault,)
            peer.start()
            body = {"url": f"http://127.0.0.1:{peer.port}/extra"}
            status, endpoint, _ = house.client.call("POST", "/v1/webhook-endpoints", body)
            assert status == 201, endpoint
            extras.append(Extra(peer, endpoint["id"]))
        yield extras
    finally:
        for extra in extras:
            house.client.call("DELETE", f"/v1/webhook-endpoints/{extra.endpoint_id}")
            extra.peer.stop()


def of(house: House, task: str, accepted: Sequence[Accepted]) -> Sequence[Any]:
    """Return the runs of a task about some credentials."""
    ids = [one.credential_id for one in accepted]
    return house.rows(select(runs).where(runs.c.task == task, runs.c.subject.in_(ids)))


def settled(house: House, task: str, accepted: Sequence[Accepted], state: str) -> Sequence[Any]:
    """Wait until every such run has a state; return them."""

    def found() -> Sequence[Any]:
        return [row for row in of(house, task, accepted) if row.state == state]

    until(
        lambda: len(found()) == len(accepted),
        SETTLED_SECONDS,
        lambda: [(row.state, row.error_code, row.spent) for row in of(house, task, accepted)],
    )
    return found()


def tried(house: House, task: str, accepted: Sequence[Accepted]) -> dict[str, str]:
    """Wait until every such run was tried once; return the error code of its first attempt."""

    def found() -> dict[str, str]:
        ids = [row.id for row in of(house, task, accepted)]
        rows = house.rows(select(attempts).where(attempts.c.run_id.in_(ids), attempts.c.number == 1))
        return {row.run_id: row.error_code for row in rows}

    until(lambda: len(found()) == len(accepted), SETTLED_SECONDS, found)
    return found()


def codes(house: House, accepted: Sequence[Accepted]) -> set[str | None]:
    """Return the error codes that the mails of some credentials have met so far."""
    return {row.error_code for row in of(house, MAIL, accepted)}


def ended(house: House, run_id: str) -> Any:
    """Return when a run's last attempt ended."""
    (row,) = house.rows(
        select(attempts.c.finished_at)
        .where(attempts.c.run_id == run_id)
        .order_by(attempts.c.number.desc())
        .limit(1)
    )
    return row.finished_at


def endpoint_state(house: House, endpoint_id: str) -> str:
    """Return `enabled` or `disabled`."""
    _, found, _ = house.client.call("GET", f"/v1/webhook-endpoints/{endpoint_id}")
    return str(found["state"])


def told_after(house: House, accepted: Sequence[Accepted]) -> list[float]:
    """Return the seconds from each 202 to the healthy receiver's event."""
    wanted = {one.credential_id: one.at for one in accepted}

    def seen() -> dict[str, float]:
        times: dict[str, float] = {}
        for hook in house.hooks.seen():
            for credential_id in wanted:
                if credential_id in str(hook["body"]):
                    times.setdefault(credential_id, hook["at"])
        return times

    until(lambda: len(seen()) == len(wanted), SETTLED_SECONDS)
    return [max(0.0, at - wanted[one]) for one, at in seen().items()]
