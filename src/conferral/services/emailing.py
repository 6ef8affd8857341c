# SPDX-License-Identifier: Apache-2.0
"""E-mail: one delivery, one Message-ID, identical bytes at every attempt.

Between the server's answer and the commit that records it stands nothing. What is lost in that
instant is sent again with the same identity, and said to be a possible duplicate.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.adapters.mailer import ChannelPaused
from conferral.domain.breaker import HEALTHY, Breaker, Limits
from conferral.domain.email_message import (
    EmailContent,
    EmailMessageBytes,
    ReportContent,
    compose,
    compose_report,
)
from conferral.domain.identity import normalise_email
from conferral.reliable import destinations, status
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Ambiguous, Permanent, Retryable, Snooze
from conferral.reliable.promises import BULK, INTERACTIVE, Promise
from conferral.reliable.promises import promise_all as promise_runs
from conferral.reliable.recording import record
from conferral.reliable.runs import Run
from conferral.services import magic
from conferral.services.groups import GroupOf, batch_of
from conferral.services.runtime import Runtime
from conferral.store.queries import bookkeeping, credentials, deliveries, tenancy
from conferral.store.records import Record

TASK: Final = "tasks.notifications.send_issuance_email"
STATUS_TASK: Final = "tasks.notifications.send_status_email"
REPORT_TASK: Final = "tasks.notifications.send_report_email"
LEASE_LEFT_SECONDS: Final = 5.0  # before the final dot: enough to record what it does
BREAKER: Final = Limits(failures=5, first_seconds=10.0, longest_seconds=300.0)
PAUSED_SECONDS: Final = 900.0  # the server refuses us, not a message: look again every 15 minutes
PROBE_SECONDS: Final = 120.0  # longer than the longest send: one probe at a time
CONNECTION_CODES: Final = ("smtp_unreachable", "smtp_throttled")
CLOSED: Final = "channel_closed"
ISSUED: Final = "issued"
RESIGNED: Final = "resigned"  # told once for each revision of the credential, and numbered as it is
RECURRING: Final = ("suspended", "reinstated")  # may happen again, and is told again


def promise_all(
    rt: Runtime, session: Session, kind: str, told: Sequence[Record], *, group_of: GroupOf = batch_of
) -> None:
    """Promise one e-mail for each credential, its identity fixed in this commit."""
    earlier = {}
    if kind in RECURRING:
        earlier = deliveries.last_revisions(session, kind, [row.credential_id for row in told])
    revisions = [row.revision if kind == RESIGNED else earlier.get(row.credential_id, 0) + 1 for row in told]
    made = [_delivery(rt, kind, row, revision) for row, revision in zip(told, revisions, strict=True)]
    by_delivery = {row["id"]: (row, credential) for row, credential in zip(made, told, strict=True)}
    # A message that was promised before (a restored log, a repeated turn) is not promised again.
    new = deliveries.add_messages(session, made)
    wanted = [one for one in by_delivery if one in new]
    ids = promise_runs(session, [_promise(*by_delivery[one], group_of) for one in wanted])
    deliveries.set_runs(session, list(zip(wanted, ids, strict=True)))


def _delivery(rt: Runtime, kind: str, row: Record, revision: int) -> dict[str, Any]:
    domain = rt.mail_from.rpartition("@")[2]
    return {
        "id": rt.new_id("dlv"),
        "organisation_id": row.organisation_id,
        "mode": row.mode,
        "channel": "email",
        "kind": kind,
        "revision": revision,
        "credential_id": row.credential_id,
        "recipient": row.recipient_email,
        "locale": row.recipient_locale,
        "message_id": f"<{row.credential_id}.{kind}.{revision}@{domain}>",
        "state": "pending",
        "possible_duplicate": False,
        "created_at": rt.database.now().replace(microsecond=0),
    }


def _promise(delivery: dict[str, Any], row: Record, group_of: GroupOf) -> Promise:
    kind, group = delivery["kind"], group_of(row)
    return Promise(
        task=TASK if kind == ISSUED else STATUS_TASK,
        args=[delivery["id"]],
        key=f"mail:{row.credential_id}:{kind}:{delivery['revision']}",
        subject=row.credential_id,
        tenant=row.organisation_id,
        priority=BULK if group else INTERACTIVE,
        bundle_key=_channel(row.mode),
        group_key=group,
    )


def send(rt: Runtime, run: Run, delivery_id: str) -> None:
    """Send the message of one delivery to its recipient."""
    with rt.database.snapshot() as session:
        delivery = _pending(session, delivery_id)
        work = credentials.work(session, delivery.credential_id)
        unsure = status.may_have_acted(session, run)
        suppressed = _is_suppressed(rt, session, run, delivery)
    if work is None:
        raise Permanent("credential_data_invalid", f"delivery {delivery_id} has no credential")
    if rt.hold_ambiguous and unsure and run.spent > 1 and delivery.armed_attempt is not None:
        # The attempt before this one died between the final dot and its record: a person decides.
        raise Permanent("email_outcome_unknown", f"delivery {delivery_id}: it may have arrived")
    if suppressed:
        raise Permanent("recipient_suppressed", f"delivery {delivery_id}: the recipient wants no mail")
    _transmit(rt, run, delivery, compose(_content(rt, delivery, work)), unsure=unsure)


def send_report(rt: Runtime, run: Run, delivery_id: str) -> None:
    """Send one day's report to an owner."""
    with rt.database.snapshot() as session:
        delivery = _pending(session, delivery_id)
        report = bookkeeping.report(session, delivery.report_id)
        organisation = tenancy.organisation(session, delivery.organisation_id)
        unsure = status.may_have_acted(session, run)
    if report is None or organisation is None:
        raise Permanent("not_found", f"delivery {delivery_id} has no report")
    content = ReportContent(
        **_addressed(rt, delivery, organisation.name, organisation.reply_to, delivery.recipient),
        report_date=report.day,
        console_url=rt.url(f"/console/reports/{report.id}"),
        figures=report.content["figures"],
    )
    _transmit(rt, run, delivery, compose_report(content), unsure=unsure)


def _transmit(rt: Runtime, run: Run, delivery: Record, message: EmailMessageBytes, *, unsure: bool) -> None:
    channel = _channel(delivery.mode)
    breaker = _admit(rt, channel)

    def before_dot() -> None:
        run.check_lease(LEASE_LEFT_SECONDS)
        if rt.hold_ambiguous:
            with rt.database.transaction() as session:
                deliveries.arm(session, delivery.id, run.attempt)

    try:
        receipt = rt.mailer(delivery.mode).send(message.at_attempt(run.spent), before_dot=before_dot)
    except ChannelPaused as paused:
        _pause(rt, channel, rt.database.now() + timedelta(seconds=PAUSED_SECONDS), paused.code)
        raise
    except Retryable as failed:
        if failed.code in CONNECTION_CODES:
            _count_failure(rt, channel, breaker, failed.code)
        else:
            _open_again(rt, channel, breaker)
        raise
    except Permanent:
        _open_again(rt, channel, breaker)  # it refuses this message, so it listens
        raise
    except Ambiguous as unknown:
        if rt.hold_ambiguous:
            raise Permanent(unknown.code, unknown.detail, evidence=unknown.evidence) from None
        raise
    magic.after_sending(delivery, run)

    def sent(session: Session) -> None:
        deliveries.mark_sent(session, delivery.id, rt.database.now(), possible_duplicate=unsure)
        run.settle(session, {"possible_duplicate": unsure}, evidence=receipt.evidence())

    record(rt.database.transaction, run, sent)
    crash_point("settle.after_commit")
    _open_again(rt, channel, breaker)  # not before: 20,000 rows must not stand between 250 and its record


def give_up(rt: Runtime, session: Session, run: Run, error: Permanent) -> None:
    """Mark the delivery, in the commit that parks its run; the credential stays issued."""
    delivery = deliveries.delivery(session, run.args[0])
    if delivery is None:
        return
    held = error.code == "email_outcome_unknown"
    deliveries.mark_failed(session, delivery.id, "held" if held else "failed", error.code)
    if error.code == "mailbox_unknown" and rt.secrets_key is not None:
        digest = address_digest(rt.secrets_key, delivery.recipient)
        deliveries.suppress(session, delivery.organisation_id, digest, error.code, rt.database.now())


def address_digest(secrets_key: bytes, address: str) -> bytes:
    """Return what a suppression knows of an address: an HMAC, which names nobody after erasure."""
    return hmac.digest(secrets_key, normalise_email(address).encode(), hashlib.sha256)


def _pending(session: Session, delivery_id: str) -> Record:
    delivery = deliveries.delivery(session, delivery_id)
    if delivery is None:
        raise Permanent("not_found", f"there is no delivery {delivery_id}")
    return delivery


def _content(rt: Runtime, delivery: Record, work: Record) -> EmailContent:
    return EmailContent(
        **_addressed(rt, delivery, work.organisation_name, work.organisation_reply_to, work.recipient_name),
        credential_title=work.fields.get("course", work.template_name),
        credential_url=rt.url(f"/c/{work.token}"),
        credential_id=work.id,
        unsubscribe_url=rt.url(f"/u/{work.token}"),
        kind=delivery.kind,
    )


def _addressed(
    rt: Runtime, delivery: Record, organisation: str, reply_to: str | None, recipient_name: str
) -> dict[str, Any]:
    return {
        "message_id": delivery.message_id,
        "date": delivery.created_at,
        "delivery_id": delivery.id,
        "from_name": organisation,
        "from_address": rt.mail_from,
        "recipient_name": recipient_name,
        "recipient_address": delivery.recipient,
        "locale": delivery.locale,
        "organisation_name": organisation,
        "reply_to": reply_to,
        "organisation_id": delivery.organisation_id,
        "test_mode": delivery.mode == "test",
    }


def _is_suppressed(rt: Runtime, session: Session, run: Run, delivery: Record) -> bool:
    if rt.secrets_key is None:
        return False
    digest = address_digest(rt.secrets_key, delivery.recipient)
    reason = deliveries.suppression(session, delivery.organisation_id, digest)
    # A person who replays the run says that the mailbox exists by now; nobody may overrule a wish.
    return reason is not None and not (reason == "mailbox_unknown" and status.was_parked(session, run))


def _channel(mode: str) -> str:
    return f"mail:{mode}"


def _admit(rt: Runtime, channel: str) -> Breaker:
    """Return the channel's breaker if this run may use it; one run probes, the others snooze."""
    with rt.database.snapshot() as session:
        row = deliveries.channel(session, channel)
    if row is None:
        return HEALTHY
    breaker = Breaker(row.failures, row.opened, row.closed_until)
    if breaker.closed_until is None:
        return breaker
    now = rt.database.now()
    if breaker.closed_until > now:
        wait = (breaker.closed_until - now).total_seconds()
        raise Snooze(CLOSED, f"channel {channel} is paused", seconds=wait)
    with rt.database.transaction() as session:
        until = now + timedelta(seconds=PROBE_SECONDS)
        mine = deliveries.take_channel_probe(session, channel, breaker.closed_until, until)
        if mine:  # the others need not be claimed to learn that they have to wait
            destinations.defer(session, channel, until, CLOSED, due_by=now)
    if not mine:
        raise Snooze(CLOSED, f"channel {channel} is being probed", seconds=BREAKER.first_seconds)
    return breaker


def _count_failure(rt: Runtime, channel: str, breaker: Breaker, code: str) -> None:
    with rt.database.transaction() as session:
        # Read again: several threads fail at once, and each of their failures counts.
        row = deliveries.channel(session, channel)
        known = HEALTHY if row is None else Breaker(row.failures, row.opened, row.closed_until)
        if known.opened > breaker.opened:
            return  # somebody else's failure closed it meanwhile
        after = known.after_failure(rt.database.now(), BREAKER)
        if after.closed_until is None:
            deliveries.set_channel(
                session, channel, failures=after.failures, opened=after.opened, closed_until=None, code=code
            )
    if after.closed_until is not None:
        _pause(rt, channel, after.closed_until, code, after)


def _pause(rt: Runtime, channel: str, until: datetime, code: str, breaker: Breaker | None = None) -> None:
    """Close the channel and move everything that waits for it, in one statement."""
    state = breaker or Breaker(BREAKER.failures, 1, until)
    with rt.database.transaction() as session:
        deliveries.set_channel(
            session,
            channel,
            failures=state.failures,
            opened=state.opened,
            closed_until=until,
            code=code,
        )
        destinations.recall(session, channel, CLOSED, until)
        destinations.defer(session, channel, until, code)


def _open_again(rt: Runtime, channel: str, breaker: Breaker) -> None:
    """Let a channel that answered be used by everybody, and bring back who waited for it."""
    if breaker.is_healthy:
        return
    with rt.database.transaction() as session:
        deliveries.set_channel(session, channel, failures=0, opened=0, closed_until=None, code=None)
        destinations.recall(session, channel, CLOSED, rt.database.now())
