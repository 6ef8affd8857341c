# SPDX-License-Identifier: Apache-2.0
"""Organisations, people and keys: made, signed in, recognised."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy.orm import Session

from conferral.adapters import design_store
from conferral.domain import api_key
from conferral.domain.credential import Mode
from conferral.domain.problems import Problem
from conferral.domain.status_change import REVOCATION, SUSPENSION
from conferral.services import status_lists
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import bookkeeping, issuers, tenancy
from conferral.store.records import Record

SESSION_FOR: Final = timedelta(hours=12)
# scrypt: 32 MiB and ~0.1 s a guess; OpenSSL refuses these parameters without maxmem.
SCRYPT: Final = {"n": 2**15, "r": 8, "p": 3, "maxmem": 64 * 1024 * 1024}
DEFAULT_SCOPES: Final = (
    "credentials:read", "credentials:write", "batches:read", "batches:write", "templates:read",
    "webhooks:read", "webhooks:write", "ops:read",
)  # fmt: skip
MODES: Final[tuple[Mode, ...]] = ("live", "test")
DEMO_SLUG: Final = "demo"
DEMO_LOGIN: Final = "admin@demo.example"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: its text is shown once."""

    id: str
    text: str
    mode: Mode


@dataclass(frozen=True, slots=True)
class NewSession:
    """A sign-in: the cookie's value, and the token that forms carry."""

    cookie: str
    csrf: str


@dataclass(frozen=True, slots=True)
class Demo:
    """What a first start shows; password and key are None when they were shown before."""

    organisation_id: str
    login: str
    password: str | None
    api_key: str | None


def create_organisation(rt: Runtime, session: Session, name: str, *, slug: str | None = None) -> str:
    """Insert an organisation with the built-in template and its first status lists; return its id."""
    slug = slug or _slug(name)
    if tenancy.organisation_by_slug(session, slug) is not None:
        raise Problem("state_conflict", f"there is an organisation {slug} already; choose another name")
    organisation_id = rt.new_id("org")
    now = rt.database.now()
    tenancy.add_organisation(session, id=organisation_id, slug=slug, name=name, created_at=now)
    add_template(rt, session, organisation_id, "diploma", design="diploma")
    bookkeeping.audit(
        session,
        organisation_id=organisation_id,
        actor="cli",
        action="organisation.created",
        subject=organisation_id,
        created_at=now,
    )
    return organisation_id


def add_template(
    rt: Runtime, session: Session, organisation_id: str, name: str, *, design: str, suspendable: bool = False
) -> str:
    """Insert a template of a built-in design; return its id.

    Args:
        rt: the runtime.
        session: the caller's transaction.
        organisation_id: whose.
        name: how requests name it; free in the organisation.
        design: a built-in design.
        suspendable: whether its credentials can be suspended and reinstated. A set bit then says suspended,
            also of a revoked one, to everybody but our own page; it cannot be chosen afterwards.

    Raises:
        Problem: `validation_failed` for an unknown design, `state_conflict` for a taken name.
    """
    if design not in design_store.design_names():
        known = ", ".join(design_store.design_names())
        raise Problem("validation_failed", f"there is no design {design[:60]!r}; known: {known}")
    if issuers.template(session, organisation_id, name) is not None:
        raise Problem("state_conflict", f"there is a template {name!r} already; choose another name")
    purpose = SUSPENSION if suspendable else REVOCATION
    for mode in MODES:  # here, because drawing a list's order takes too long for a request
        if status_lists.is_missing(session, organisation_id, mode, purpose):
            status_lists.open_list(rt, session, organisation_id, mode, purpose)
    return _insert_template(rt, session, organisation_id, name, design=design, purpose=purpose)


def _insert_template(
    rt: Runtime, session: Session, organisation_id: str, name: str, *, design: str, purpose: str
) -> str:
    template_id, version_id = rt.new_id("tpl"), rt.new_id("tpv")
    theme = design_store.default_theme(design)
    now = rt.database.now()
    issuers.add_template(
        session,
        id=template_id,
        organisation_id=organisation_id,
        name=name,
        achievement_id=uuid.UUID(bytes=rt.random(16), version=4).urn,
        current_version_id=version_id,
        created_at=now,
    )
    issuers.add_template_version(
        session,
        id=version_id,
        template_id=template_id,
        number=1,
        design=design,
        theme=theme,
        design_version=design_store.version_of(design, theme),
        description="Awarded on completing the course.",
        criteria="The holder completed the course and met its requirements.",
        status_purpose=purpose,
        created_at=now,
    )
    return template_id


def create_key(
    rt: Runtime, session: Session, organisation_id: str, mode: Mode, *, name: str,
    scopes: tuple[str, ...] = DEFAULT_SCOPES,
) -> NewKey:  # fmt: skip
    """Insert an API key; its text is returned once and never stored."""
    unknown = sorted(set(scopes) - set(api_key.SCOPES))
    if unknown:
        raise Problem("validation_failed", f"unknown scope {unknown[0]}; known: {', '.join(api_key.SCOPES)}")
    made = api_key.make(mode, rt.random(40))
    key_id = rt.new_id("key")
    now = rt.database.now()
    tenancy.add_api_key(
        session,
        id=key_id,
        organisation_id=organisation_id,
        mode=mode,
        handle=made.handle,
        digest=made.digest(rt.pepper),
        last4=made.text[-4:],
        name=name[:100],
        scopes=list(scopes),
        created_at=now,
    )
    bookkeeping.audit(
        session, organisation_id=organisation_id, actor="cli", action="api_key.created",
        subject=key_id, created_at=now,
    )  # fmt: skip
    return NewKey(key_id, made.text, mode)


def authenticate(rt: Runtime, text: str | None, request_id: str | None = None) -> Caller:
    """Return the caller an API key names.

    Raises:
        Problem: `key_missing`, `key_invalid`, `key_expired` or `organisation_suspended`.
    """
    if not text:
        raise Problem("key_missing", "send the header `Authorization: Bearer <API key>`")
    parsed = api_key.parse(text)
    if parsed is None:
        raise Problem("key_invalid", "this is not one of our keys, or it has a typing error")
    now = rt.database.now()
    with rt.database.snapshot() as session:
        row = tenancy.api_key_by_handle(session, parsed.handle)
    digest = parsed.digest(rt.pepper)
    if row is None or not hmac.compare_digest(row.digest, digest) or row.revoked_at is not None:
        raise Problem("key_invalid", "this key is unknown or revoked; make a new one")
    if row.expires_at is not None and row.expires_at <= now:
        raise Problem("key_expired", "this key has expired; make a new one")
    if row.suspended:
        raise Problem("organisation_suspended", "the organisation is suspended; ask the operator")
    if row.last_used_at is None or now - row.last_used_at > tenancy.USED_AT_PRECISION:
        with rt.database.transaction() as session:
            tenancy.mark_api_key_used(session, row.id, now)
    return Caller(row.organisation_id, row.mode, f"key:{row.id}", frozenset(row.scopes), request_id)


def create_user(rt: Runtime, session: Session, email: str, name: str, password: str) -> str:
    """Insert a person who may sign in; return the id."""
    user_id = rt.new_id("usr")
    tenancy.add_user(
        session,
        id=user_id,
        email=email.lower(),
        name=name,
        password_hash=hash_password(password, rt.random(16)),
        created_at=rt.database.now(),
    )
    return user_id


def generated_password(rt: Runtime) -> str:
    """Return 80 random bits as 16 letters and digits that can be read aloud."""
    return base64.b32encode(rt.random(10)).decode().lower()


def sign_in(rt: Runtime, email: str, password: str) -> NewSession:
    """Open a session, or raise Problem `key_invalid`; an unknown person costs the same time."""
    with rt.database.snapshot() as session:
        user = tenancy.user_by_email(session, email.strip().lower())
    stored = user.password_hash if user is not None else hash_password("", b"\0" * 16)
    matches = check_password(password, stored)
    if user is None or not matches:
        raise Problem("key_invalid", "the address or the password is wrong")
    cookie = base64.urlsafe_b64encode(rt.random(32)).decode().rstrip("=")
    csrf = base64.urlsafe_b64encode(rt.random(24)).decode()
    now = rt.database.now()
    with rt.database.transaction() as session:
        tenancy.add_session(
            session, digest=session_digest(cookie), user_id=user.id, csrf=csrf,
            created_at=now, expires_at=now + SESSION_FOR,
        )  # fmt: skip
    return NewSession(cookie, csrf)


def signed_in(rt: Runtime, cookie: str) -> Record | None:
    """Return the person of a session cookie, unless it has expired."""
    with rt.database.snapshot() as session:
        return tenancy.live_session(session, session_digest(cookie), rt.database.now())


def sign_out(rt: Runtime, cookie: str) -> None:
    """End a session."""
    with rt.database.transaction() as session:
        tenancy.end_session(session, session_digest(cookie))


def session_digest(cookie: str) -> bytes:
    """Return what is stored of a cookie."""
    return hashlib.sha256(cookie.encode()).digest()


def hash_password(password: str, salt: bytes) -> str:
    """Return `scrypt$<salt>$<digest>` in hex."""
    digest = hashlib.scrypt(password.encode(), salt=salt, dklen=32, **SCRYPT)
    return f"scrypt${salt.hex()}${digest.hex()}"


def check_password(password: str, stored: str) -> bool:
    """Return whether a password is the stored one, in constant time."""
    _, salt, _ = stored.split("$")
    return hmac.compare_digest(hash_password(password, bytes.fromhex(salt)), stored)


def ensure_demo(rt: Runtime) -> Demo:
    """Make the demo organisation with a login and a test key, once; nothing has a default password."""
    with rt.database.snapshot() as session:
        known = tenancy.organisation_by_slug(session, DEMO_SLUG)
    if known is not None:
        return Demo(known.id, DEMO_LOGIN, None, None)
    password = generated_password(rt)
    with rt.database.transaction() as session:
        organisation_id = create_organisation(rt, session, "Demo University", slug=DEMO_SLUG)
        user_id = create_user(rt, session, DEMO_LOGIN, "Demo administrator", password)
        tenancy.add_member(session, organisation_id, user_id, "owner")
        key = create_key(rt, session, organisation_id, "test", name="First test key")
    return Demo(organisation_id, DEMO_LOGIN, password, key.text)


def default_organisation(session: Session) -> Record:
    """Return the oldest organisation: the one meant where none is named."""
    rows = tenancy.all_organisations(session)
    if not rows:
        raise Problem("not_found", "there is no organisation yet; make one with `conferral org create NAME`")
    return rows[0]


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60]
    if not slug:
        raise Problem("validation_failed", "give a slug of letters and digits: the name has none")
    return slug
