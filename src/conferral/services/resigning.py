# SPDX-License-Identifier: Apache-2.0
"""Sign again what a withdrawn key signed: the same credential, the same pages, the next revision.

Nothing but the proof changes: the same id, the same base PDF, the same place in the status list. Each one
moves by a compare-and-set from its revision to the next, with its leaf, its mail and its event in the same
commit, so the work may die anywhere and be repeated, even beside itself.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.domain import canonical, data_integrity, vc
from conferral.domain.pdf_attachment import attach
from conferral.reliable.crash_points import crash_point
from conferral.reliable.errors import Permanent
from conferral.reliable.promises import BULK, promise
from conferral.reliable.runs import Run
from conferral.services import anchoring, emailing, notifying, signing_keys
from conferral.services.runtime import Runtime
from conferral.services.signing_keys import Issuer
from conferral.store.queries import revisions
from conferral.store.records import Record

logger = logging.getLogger(__name__)

TASK: Final = "tasks.issuance.resign"
EVENT: Final = "credential.resigned"
CHUNK: Final = 500  # credentials a commit
CHUNK_SECONDS: Final = 5.0  # a slower machine commits smaller chunks: what dies loses seconds
RUN_SECONDS: Final = 10.0  # the pool kills what takes 25 s; the rest is the next run's
WRITERS: Final = 8  # files written at once; more gain nothing on one disk
LEASE_LEFT_SECONDS: Final = 5.0  # enough to record a chunk
LOOK_AGAIN: Final = timedelta(seconds=5)  # while a credential signed by the old key waits for the log
LAST_LOOK: Final = timedelta(seconds=60)
"""Who opened the key before its withdrawal cannot commit later than a lease and a hard limit after it."""

Owner = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SignedAgain:
    """One credential's next revision, before its row is moved."""

    row: Record
    was_created: datetime
    content: bytes
    final: bytes

    @property
    def vc_sha256(self) -> str:
        """The digest of the signed document: its name in the file store, and its log entry."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pdf_sha256(self) -> str:
        """The digest of the PDF around it, its name in the file store."""
        return hashlib.sha256(self.final).hexdigest()


@dataclass(slots=True)
class _Progress:
    """Where a run is: the last id it looked at, and what it counted."""

    after: str = ""
    signed_again: int = 0
    skipped: int = 0
    is_through: bool = False


def promise_run(session: Session, organisation_id: str, mode: str, *, due_at: datetime | None = None) -> None:
    """Promise that an issuer's credentials are looked through; the last statement of its commit."""
    promise(
        session, TASK, [organisation_id, mode], coalesce=f"keys.resign:{organisation_id}:{mode}",
        tenant=organisation_id, priority=BULK, due_at=due_at,
    )  # fmt: skip


def resign(rt: Runtime, run: Run, organisation_id: str, mode: str) -> None:
    """Sign again every live credential of an issuer that a withdrawn key signed; promise to go on.

    The proof's `created` is the moment of the withdrawal, so a repetition signs the same bytes.
    """
    owner = (organisation_id, mode)
    withdrawn = {
        method: key.withdrawn_at
        for method, key in signing_keys.known(rt, organisation_id, mode).items()
        if key.withdrawn_at is not None
    }
    progress = _Progress(is_through=not withdrawn)
    if withdrawn:
        moment = max(withdrawn.values()).replace(microsecond=0)
        issuer = signing_keys.issuer(rt, organisation_id, mode)
        started = time.monotonic()
        while not progress.is_through and time.monotonic() - started < RUN_SECONDS:
            _one_chunk(rt, run, issuer, (owner, list(withdrawn), moment), progress)
    with rt.database.transaction() as session:
        run.settle(session, {"signed_again": progress.signed_again, "skipped": progress.skipped})
        due_at = _next_look(rt, session, owner, withdrawn, progress)
        if due_at is not None:
            promise_run(session, organisation_id, mode, due_at=due_at)


def _one_chunk(
    rt: Runtime, run: Run, issuer: Issuer, work: tuple[Owner, list[str], datetime], progress: _Progress
) -> None:
    """Sign the next credentials again, at most `CHUNK` and for `CHUNK_SECONDS`, and commit them."""
    owner, methods, moment = work
    with rt.database.snapshot() as session:
        rows = revisions.signed_under(session, owner, methods, after=progress.after, limit=CHUNK)
    made: list[SignedAgain] = []
    started = time.monotonic()
    looked = 0
    for row in rows:
        if looked and time.monotonic() - started > CHUNK_SECONDS:
            break
        one = _sign_again(rt, issuer, row, moment)
        looked, progress.after = looked + 1, row.id
        made += [one] if one is not None else []
    _store(rt, made)
    crash_point("resign.stored")
    if made:
        run.check_lease(LEASE_LEFT_SECONDS)
        with rt.database.transaction() as session:
            progress.signed_again += _record(rt, session, issuer, made)
            crash_point("resign.before_commit")
        crash_point("resign.after_commit")
    progress.skipped += looked - len(made)
    progress.is_through = looked == len(rows) < CHUNK


def _sign_again(rt: Runtime, issuer: Issuer, row: Record, moment: datetime) -> SignedAgain | None:
    """Make the next revision of one credential; None, said loudly, when its bytes are not what was recorded.

    Raises:
        Permanent: the new key does not match its public half.
    """
    stored, pdf = _kept(rt, row.vc_sha256), _kept(rt, row.pdf_sha256)
    base = pdf[: row.base_length]
    # Only what our rows name is signed again: whoever has the old key may have other bytes.
    if not stored or hashlib.sha384(base).digest() != row.base_sha384:
        logger.error(
            "credential_not_resigned", extra={"credential_id": row.id, "code": "storage_unavailable"}
        )
        return None
    document = canonical.read_document(stored)
    proof = data_integrity.read_proof(document)
    unsigned = {name: value for name, value in document.items() if name != "proof"}
    content = _signed(rt, issuer, unsigned, moment)
    was_created = datetime.fromisoformat(str(proof["created"]))
    return SignedAgain(row, was_created, content, attach(base, content, moment))


def _store(rt: Runtime, made: Sequence[SignedAgain]) -> None:
    """Store the files of a chunk side by side: a write waits for the disk, which takes many at once."""
    files = [content for one in made for content in (one.content, one.final)]
    with ThreadPoolExecutor(max_workers=WRITERS) as writers:
        for _ in writers.map(rt.blobs.put, files):
            pass


def _signed(rt: Runtime, issuer: Issuer, unsigned: canonical.Document, moment: datetime) -> bytes:
    options = vc.proof_options(
        data_integrity.EDDSA_RDFC,
        verification_method=issuer.verification_method,
        created=vc.timestamp(moment),
        document=unsigned,
    )
    hashed = vc.hash_to_sign(unsigned, options, canonicalise=rt.signing_shapes.nquads)
    signed = vc.add_proof(unsigned, options, issuer.sign(hashed))
    # A wrong key never leaves the house: check with what the world will check with.
    try:
        data_integrity.check_hashed(signed, hashed, issuer.public_key)
    except data_integrity.ProofRefused as refused:
        raise Permanent("signing_key_revoked", f"a signature of {issuer.did}: {refused}") from None
    return vc.stored_form(signed)


def _kept(rt: Runtime, digest: str) -> bytes:
    """Return the bytes of a blob, or none when it is gone or altered."""
    try:
        content = rt.blobs.get(digest)
    except KeyError:
        return b""
    return content if hashlib.sha256(content).hexdigest() == digest else b""


def _record(rt: Runtime, session: Session, issuer: Issuer, made: Sequence[SignedAgain]) -> int:
    """Move credentials to their next revisions, with leaves, mails and events; return how many moved.

    One that was revoked, erased or moved meanwhile stays as it is: its new files have no row and are swept.
    """
    now = rt.database.now()
    moved = [
        one
        for one in made
        if revisions.advance(
            session, one.row.id, from_revision=one.row.revision, vc_sha256=one.vc_sha256,
            pdf_sha256=one.pdf_sha256, verification_method=issuer.verification_method,
        )
    ]  # fmt: skip
    revisions.keep(session, [_replaced(one, now) for one in moved])
    revisions.append_leaves(session, [_leaf(one) for one in moved], now)
    _tell(rt, session, [one.row.id for one in moved])
    for name in sorted({one.row.mode for one in moved}):
        anchoring.promise_turn(session, name)
    return len(moved)


def _replaced(one: SignedAgain, now: datetime) -> dict[str, Any]:
    return {
        "credential_id": one.row.id,
        "revision": one.row.revision,
        "vc_sha256": one.row.vc_sha256,
        "pdf_sha256": one.row.pdf_sha256,
        "verification_method": one.row.verification_method,
        "created_at": one.was_created,
        "replaced_at": now,
    }


def _leaf(one: SignedAgain) -> dict[str, Any]:
    return {
        "log": one.row.mode,
        "credential_id": one.row.id,
        "revision": one.row.revision + 1,
        "entry": bytes.fromhex(one.vc_sha256),
    }


def _tell(rt: Runtime, session: Session, ids: Sequence[str]) -> None:
    """Promise a mail to each recipient, and the event to every endpoint that wants it."""
    rows = revisions.told(session, ids)
    mailed = [row for row in rows if row.send_email]
    emailing.promise_all(rt, session, emailing.RESIGNED, mailed, group_of=_group)
    for state in revisions.LIVE:
        here = [row for row in rows if row.state == state]
        notifying.announce(rt, session, EVENT, here, state=state, group_of=_group)


def _group(row: Record) -> str:
    """Return the group of what is told about one: thousands at once, so it is bulk work."""
    return f"resign:{row.organisation_id}"


def _next_look(
    rt: Runtime, session: Session, owner: Owner, withdrawn: dict[str, datetime], progress: _Progress
) -> datetime | None:
    """Return when to go on; None when nothing signed by a withdrawn key can come any more."""
    now = rt.database.now()
    if not progress.is_through:
        return now
    if not withdrawn:
        return None
    if revisions.is_being_issued(session, owner, list(withdrawn)):
        return now + LOOK_AGAIN
    last = max(withdrawn.values()) + LAST_LOOK
    return last if now < last else None
