# SPDX-License-Identifier: Apache-2.0
"""Admission: check what people ask for, and fix everything that identifies a credential.

Wrong data is refused here, by field and all at once, and never becomes a dead run later.
What is fixed here makes every repeat of signing give the same bytes.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from sqlalchemy.orm import Session

from conferral.adapters import design_store
from conferral.domain import recipient
from conferral.domain.credential import QUEUED
from conferral.domain.identity import email_salt
from conferral.domain.problems import FieldError, Problem
from conferral.domain.tokens import public_token
from conferral.services import status_lists
from conferral.services.runtime import Caller, Runtime
from conferral.store.queries import issuers
from conferral.store.records import Record

MAX_EXTERNAL_ID: Final = 200
LOCALES: Final = ("en", "es", "fr", "ar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One credential as somebody asks for it; texts as they were typed."""

    template: str
    recipient_name: str
    recipient_email: str
    locale: str = "en"
    fields: Mapping[str, str] = field(default_factory=dict)
    issued_on: str | None = None
    expires_on: str | None = None
    external_id: str | None = None
    send_email: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What was checked: normalised, printable, complete."""

    recipient_name: str
    recipient_email: str
    locale: str
    fields: dict[str, str]
    issued_on: date
    expires_on: date | None
    external_id: str | None
    send_email: bool
    is_dated_by_us: bool = False

    def content_digest(self, version_id: str) -> bytes:
        """Return a digest that tells "the same again" from "something else"."""
        # A date that nobody asked for is no content: the same file sent again tomorrow is the same.
        issued_on = None if self.is_dated_by_us else self.issued_on.isoformat()
        content = [
            version_id, self.recipient_name, self.recipient_email, self.locale, self.fields,
            issued_on, self.expires_on.isoformat() if self.expires_on else None,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def find_template(session: Session, organisation_id: str, id_or_name: str) -> Record:
    """Return a template of the organisation, or raise the Problem that names the known ones."""
    found = issuers.template(session, organisation_id, id_or_name)
    if found is not None:
        return found
    names = [row.name for row in issuers.templates_of(session, organisation_id)]
    near = difflib.get_close_matches(id_or_name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    detail = f"there is no template {id_or_name[:60]!r}; {hint}known: {', '.join(names[:10])}"
    raise Problem(
        "validation_failed", detail, errors=[FieldError("#/template_id", "template_unknown", detail)]
    )


def check(rt: Runtime, design: str, wanted: Wanted) -> Admitted | list[FieldError]:
    """Return what was checked, or everything that is wrong with it."""
    errors: list[FieldError] = []

    def take(value: Any) -> Any:
        if isinstance(value, FieldError):
            errors.append(value)
            return None
        return value

    name = take(recipient.name(wanted.recipient_name, "#/recipient/name"))
    email = take(recipient.address(wanted.recipient_email, "#/recipient/email"))
    issued_on = take(_optional_day(wanted.issued_on, "#/issued_on")) or rt.today()
    expires_on = take(_optional_day(wanted.expires_on, "#/expires_on"))
    if expires_on is not None and expires_on < issued_on:
        errors.append(FieldError("#/expires_on", "date_order", "it lies before issued_on"))
    if wanted.locale not in LOCALES:
        expected = ", ".join(LOCALES)
        errors.append(FieldError("#/recipient/locale", "field_invalid", f"expected one of {expected}"))
    external_id = None
    if wanted.external_id is not None:
        external_id = take(recipient.text(wanted.external_id, "#/external_id", longest=MAX_EXTERNAL_ID))
    fields = _check_fields(design, wanted.fields, errors)
    if name is not None:
        errors += _unprintable(rt, name, "#/recipient/name")
    for key, value in fields.items():
        errors += _unprintable(rt, value, f"#/fields/{key}")
    if errors:
        return errors
    return Admitted(
        recipient_name=name,
        recipient_email=email,
        locale=wanted.locale,
        fields=fields,
        issued_on=issued_on,
        expires_on=expires_on,
        external_id=external_id,
        send_email=wanted.send_email,
        is_dated_by_us=not (wanted.issued_on or "").strip(),
    )


def _check_fields(design: str, given: Mapping[str, str], errors: list[FieldError]) -> dict[str, str]:
    known = {one.id: one for one in design_store.fields_of(design)}
    for key in given.keys() - known.keys():
        names = ", ".join(known)
        errors.append(
            FieldError(f"#/fields/{key[:60]}", "field_unknown", f"no such field; this template has {names}")
        )
    checked: dict[str, str] = {}
    for key, described in known.items():
        pointer = f"#/fields/{key}"
        value = given.get(key)
        if value is None or not value.strip():
            if described.required:
                errors.append(FieldError(pointer, "field_required", f"the template needs {key}"))
            continue
        found: Any = (
            recipient.day(value, pointer)
            if described.kind == "date"
            else recipient.text(value, pointer, longest=described.max_characters)
        )
        if isinstance(found, FieldError):
            errors.append(found)
        else:
            checked[key] = found.isoformat() if isinstance(found, date) else found
    return checked


def _optional_day(value: str | None, pointer: str) -> date | FieldError | None:
    return recipient.day(value, pointer) if value and value.strip() else None


def _unprintable(rt: Runtime, text: str, pointer: str) -> list[FieldError]:
    missing = rt.fonts.unprintable(text)
    if not missing:
        return []
    named = ", ".join(f"{character} (U+{ord(character[0]):04X})" for character in missing[:10])
    return [FieldError(pointer, "text_unprintable", f"no installed font can print {named}")]


def rows(
    rt: Runtime,
    session: Session,
    caller: Caller,
    template: Record,
    admitted: Sequence[Admitted],
    *,
    batch_id: str | None = None,
    batch_rows: Sequence[int] = (),
    supersedes: str | None = None,
) -> list[dict[str, Any]]:
    """Return rows of `credentials`, each with its identity fixed and its status index taken."""
    places = status_lists.allocate(
        rt, session, caller.organisation_id, caller.mode, template.status_purpose, count=len(admitted)
    )
    shared = {
        "organisation_id": caller.organisation_id,
        "mode": caller.mode,
        "state": QUEUED,
        "revision": 1,
        "template_version_id": template.version_id,
        "batch_id": batch_id,
        "supersedes": supersedes,
        "run_id": None,
        # Whole seconds: it is also the proof's `created` and the PDF's date.
        "created_at": rt.database.now().replace(microsecond=0),
    }
    numbers: Sequence[int | None] = batch_rows or [None] * len(admitted)
    return [
        shared
        | _identity(rt)
        | _content(one, template.version_id)
        | {"batch_row": number, "status_list_number": place[0], "status_index": place[1]}
        for one, place, number in zip(admitted, places, numbers, strict=True)
    ]


def _identity(rt: Runtime) -> dict[str, Any]:
    return {
        "id": rt.new_id("cred"),
        "vc_id": uuid.UUID(bytes=rt.random(16), version=4).urn,
        "token": public_token(rt.random(16)),
        "salt": email_salt(rt.random(16)),
    }


def _content(one: Admitted, version_id: str) -> dict[str, Any]:
    return {
        "external_id": one.external_id,
        "content_digest": one.content_digest(version_id),
        "send_email": one.send_email,
        "recipient_name": one.recipient_name,
        "recipient_email": one.recipient_email,
        "recipient_locale": one.locale,
        "fields": one.fields,
        "issued_on": one.issued_on,
        "expires_on": one.expires_on,
    }
