# SPDX-License-Identifier: Apache-2.0
"""`conferral mailbox`: the mail that was captured instead of sent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from email import message_from_bytes, policy

import click

from conferral.cli import installation, showing
from conferral.cli.main import USAGE
from conferral.domain.problems import Problem
from conferral.store.queries import bookkeeping
from conferral.store.records import Record

LISTED = 20
_HEADERS = ("From", "To", "Subject", "Date", "Message-ID")


@click.command()
@click.argument("message_id", metavar="[ID]", required=False)
@click.option("--raw", is_flag=True, help="Print the message's source, byte for byte.")
@click.option("--limit", type=click.IntRange(1, 200), default=LISTED, show_default=True, help="How many.")
@installation.with_json
@installation.for_organisation
def mailbox(message_id: str | None, raw: bool, limit: int, as_json: bool, organisation: str | None) -> int:
    """List captured e-mails, newest first, or read one."""
    if raw and message_id is None:
        showing.remark("conferral: --raw needs the id of a message")
        return USAGE
    with installation.opened() as rt:
        owner = installation.organisation_named(rt, organisation)
        with rt.database.snapshot() as session:
            if message_id is None:
                _list(bookkeeping.messages(session, owner.id, limit), as_json=as_json)
                return 0
            found = bookkeeping.message(session, owner.id, message_id)
    if found is None:
        raise Problem("not_found", f"there is no message {message_id!r}; see `conferral mailbox`")
    if raw:
        sys.stdout.buffer.write(found.source)
        sys.stdout.flush()
    else:
        _show(found, as_json=as_json)
    return 0


def _list(found: Sequence[Record], *, as_json: bool) -> None:
    if as_json:
        for row in found:
            showing.emit(_record(row))
        return
    if not found:
        showing.say("No captured e-mails.")
        return
    showing.rows(
        ("message", "received", "to", "subject"),
        ((row.id, row.received_at, row.recipient, row.subject) for row in found),
    )


def _show(found: Record, *, as_json: bool) -> None:
    message = message_from_bytes(found.source, policy=policy.default)
    body = message.get_body(("plain",))
    text = str(body.get_content()) if body is not None else ""
    if as_json:
        attached = [part.get_filename() for part in message.iter_attachments()]
        showing.emit({**_record(found), "text": text, "attachments": attached})
        return
    for name in _HEADERS:
        showing.say(f"{name + ':':<12} {message[name]}")
    for part in message.iter_attachments():
        showing.say(f"{'Attached:':<12} {part.get_filename()} ({part.get_content_type()})")
    showing.say()
    showing.say(text.rstrip())


def _record(row: Record) -> dict[str, object]:
    return {
        "id": row.id,
        "message_id": row.message_id,
        "delivery_id": row.delivery_id,
        "recipient": row.recipient,
        "subject": row.subject,
        "received_at": row.received_at,
    }
