# SPDX-License-Identifier: Apache-2.0
"""The bytes of an e-mail: a pure function of what was frozen with its delivery.

Every attempt of a delivery must send the same bytes, so nothing here may read a clock, a random
source or a setting. The MIME structure is written out here: two text parts need no serialiser,
whose folding changes with the Python version and which costs three times as much.
Changing a single byte of what is composed is a decision: the golden-bytes tests hold it.
Wording and layout are data in `email_templates`.
"""

from __future__ import annotations

import binascii
import datetime as dt
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.header import Header
from email.utils import format_datetime
from typing import Final

import idna
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from conferral.domain import email_templates
from conferral.domain.email_templates import FIGURES, Language, Wording
from conferral.reliable.errors import Permanent

MAX_TEXT_CHARACTERS: Final = 500
"""Longest name, title or subject: an encoded header stays far below RFC 5322's practical limits."""
MAX_URL_CHARACTERS: Final = 900
"""A header line may hold 998 octets (RFC 5322 2.1.1); the unsubscribe link stands on one."""
MAX_ADDRESS_CHARACTERS: Final = 254
"""RFC 5321 4.5.3.1.3: a path of 256 octets, less its angle brackets."""
MAX_LOCAL_PART_OCTETS: Final = 64
"""RFC 5321 4.5.3.1.1."""

# C0, DEL, C1, line and paragraph separators, and the controls that can turn text around: a name that
# holds one is either an attack on the headers or on the reader's eyes.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_URL: Final = re.compile(r"https?://[!#-;=?-~]+")
_ASCII_LOCAL_PART: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_MESSAGE_ID: Final = re.compile(r"<[A-Za-z0-9._+=-]+@[A-Za-z0-9.-]+>")
_BASE64_LINE: Final = 76
"""RFC 2045 6.8."""
_HEADER_LINE: Final = 74
"""RFC 5322 2.1.1 asks for at most 78; this leaves room for the angle brackets of an address."""
_FOLD: Final = "\r\n "
_SANS: Final = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Noto Sans', sans-serif"
_SERIF: Final = "Georgia, 'Times New Roman', 'Noto Serif', serif"


@dataclass(frozen=True, kw_only=True)
class _Addressed:
    """What every kind of e-mail is addressed with; all of it is frozen in the promising commit."""

    message_id: str
    """With its angle brackets: `<cred_….issued.1@sending-domain>`."""
    date: dt.datetime
    """Aware; the `created_at` of the delivery, never the time of the attempt."""
    delivery_id: str
    from_name: str
    from_address: str
    recipient_name: str
    recipient_address: str
    locale: str
    organisation_name: str
    reply_to: str | None = None
    organisation_id: str = ""
    test_mode: bool = False
    wording: Wording | None = None
    """The organisation's own sentences; ours where there are none."""


@dataclass(frozen=True, kw_only=True)
class EmailContent(_Addressed):
    """One e-mail to a recipient about a credential."""

    credential_title: str
    credential_url: str
    credential_id: str
    unsubscribe_url: str | None = None
    kind: str = "issued"


@dataclass(frozen=True, kw_only=True)
class ReportContent(_Addressed):
    """One day's issuance, for an owner of the organisation."""

    report_date: dt.date
    console_url: str
    figures: Mapping[str, int]
    """Counts by the names of `email_templates.FIGURES`; those left out are not shown."""


@dataclass(frozen=True, kw_only=True)
class EmailMessageBytes:
    """A message ready to be sent: its exact bytes, its envelope and its identity."""

    content: bytes
    """RFC 5322, every line ended by CRLF; never dot-stuffed."""
    envelope_from: str
    envelope_to: str
    """The domain in ASCII (IDNA 2008); a local part that is not ASCII needs SMTPUTF8."""
    message_id: str
    delivery_id: str
    sha256: str
    """Of `content`, in hexadecimal."""
    attempt: int = 1
    """Which attempt of the delivery this is, from 1; no byte depends on it."""

    def __post_init__(self) -> None:
        ends = self.content.count(b"\r\n")
        if not self.content.endswith(b"\r\n") or ends != self.content.count(b"\n"):
            # A bare LF or CR before a dot lets one message smuggle in another (CVE-2023-51764).
            raise ValueError(f"message of {self.delivery_id} has lines that do not end in CRLF")
        if ends != self.content.count(b"\r"):
            raise ValueError(f"message of {self.delivery_id} has a bare CR")
        if _FORBIDDEN.search(self.envelope_from + self.envelope_to):
            raise ValueError(f"envelope of {self.delivery_id} holds a control character")

    @property
    def needs_smtputf8(self) -> bool:
        """Whether a server without RFC 6531 cannot take this message."""
        return not (self.envelope_to.isascii() and self.envelope_from.isascii())

    def at_attempt(self, number: int) -> EmailMessageBytes:
        """Return the same message, for attempt `number`."""
        return replace(self, attempt=number)


def compose(content: EmailContent) -> EmailMessageBytes:
    """Return the message that tells a recipient about a credential.

    Raises:
        Permanent: `credential_data_invalid`, for a control character, a link that is not http(s)
            or an address that is none. Intake refused these before; this is the second lock.
    """
    language = email_templates.language(content.locale)
    wording = (content.wording or language.kinds[content.kind]).filled(
        {
            "recipient.name": content.recipient_name,
            "organisation.name": content.organisation_name,
            "credential.title": content.credential_title,
        }
    )
    headers = {"X-Credential-Id": content.credential_id}
    parts: dict[str, object] = {
        "url": _checked_url("credential_url", content.credential_url),
        "plate_title": content.credential_title,
        "plate_name": content.recipient_name,
    }
    if content.unsubscribe_url:
        parts["unsubscribe_url"] = _checked_url("unsubscribe_url", content.unsubscribe_url)
        headers["List-Unsubscribe"] = f"<{content.unsubscribe_url}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    letter = _letter(content, language, wording, parts)
    return _assembled(content, content.kind, letter, headers)


def compose_report(content: ReportContent) -> EmailMessageBytes:
    """Return the message that tells an owner what one day issued.

    Raises:
        Permanent: `credential_data_invalid`, as `compose` does.
    """
    language = email_templates.language(content.locale)
    wording = (content.wording or language.kinds["daily_report"]).filled(
        {
            "recipient.name": content.recipient_name,
            "organisation.name": content.organisation_name,
            "report.date": content.report_date.isoformat(),
        }
    )
    figures = [
        {"label": language.figures[name], "value": _grouped(content.figures[name])}
        for name in FIGURES
        if name in content.figures
    ]
    parts = {"url": _checked_url("console_url", content.console_url), "figures": figures}
    return _assembled(content, "daily_report", _letter(content, language, wording, parts), {})


def ascii_address(address: str) -> str:
    """Return an address with its domain in ASCII by IDNA 2008; the local part is kept as it is.

    Raises:
        Permanent: `credential_data_invalid`, if it is no address of RFC 5321 or RFC 6531. Quoted local
            parts and address literals are refused: nobody's mailbox needs them.
    """
    local, separator, domain = address.rpartition("@")
    if not separator or not local or _FORBIDDEN.search(address) or re.search(r'[\s"<>(),:;\\\[\]@]', local):
        raise _invalid("an e-mail address is not of the form name@domain")
    if local.isascii() and not _ASCII_LOCAL_PART.fullmatch(local):
        raise _invalid("the part of an e-mail address before the @ has misplaced dots")
    try:
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii").lower()
    except idna.IDNAError:
        raise _invalid("the domain of an e-mail address is no domain name (IDNA 2008)") from None
    whole = f"{local}@{ascii_domain}"
    if len(local.encode()) > MAX_LOCAL_PART_OCTETS or len(whole.encode()) > MAX_ADDRESS_CHARACTERS:
        raise _invalid("an e-mail address is longer than RFC 5321 allows")
    return whole


def _letter(
    content: _Addressed, language: Language, wording: Wording, parts: Mapping[str, object]
) -> dict[str, object]:
    """Return every value the two layouts may name; `parts` are those of this kind of e-mail."""
    is_left_to_right = language.direction == "ltr"
    return {
        **vars(wording),
        "lang": language.tag,
        "direction": language.direction,
        "start": "left" if is_left_to_right else "right",
        "end": "right" if is_left_to_right else "left",
        # Space between letters would tear joined scripts apart.
        "narrow_tracking": "0.4px" if is_left_to_right else "normal",
        "wide_tracking": "1.6px" if is_left_to_right else "normal",
        "sans": _SANS,
        "serif": _SERIF,
        "banner": language.test_banner if content.test_mode else "",
        "link_hint": language.link_hint,
        "organisation": _checked_text("organisation_name", content.organisation_name),
        "plate_title": "",
        "plate_name": "",
        "figures": (),
        "unsubscribe_url": "",
        **parts,
    }


def _assembled(
    content: _Addressed, kind: str, letter: Mapping[str, object], headers: Mapping[str, str]
) -> EmailMessageBytes:
    """Put headers and both parts together; the same for every kind."""
    sender, recipient = ascii_address(content.from_address), ascii_address(content.recipient_address)
    boundary = _boundary(content.delivery_id)
    own = _standard_headers(content, sender, recipient)
    own["Subject"] = _encoded(_checked_text("subject", str(letter["subject"])), "Subject")
    own["Content-Language"] = str(letter["lang"])
    # Read by Gmail's postmaster tools, from the narrowest to the widest: kind, organisation, product.
    own["Feedback-ID"] = f"{kind}:{content.organisation_id}:conferral:conferral"
    for name, value in headers.items():
        own[name] = _checked_text(name, value, limit=MAX_URL_CHARACTERS + len("<>"))
    own["MIME-Version"] = "1.0"
    own["Content-Type"] = f'multipart/alternative;{_FOLD}boundary="{boundary}"'
    lines = [f"{name}: {value}" for name, value in own.items()]
    for subtype, text in (("plain", _TEXT.render(letter)), ("html", _HTML.render(letter))):
        lines += ["", f"--{boundary}", *_part(subtype, text)]
    lines += ["", f"--{boundary}--", ""]
    encoded = "\r\n".join(lines).encode()
    return EmailMessageBytes(
        content=encoded,
        envelope_from=sender,
        envelope_to=recipient,
        message_id=content.message_id,
        delivery_id=content.delivery_id,
        sha256=hashlib.sha256(encoded).hexdigest(),
    )


def _standard_headers(content: _Addressed, sender: str, recipient: str) -> dict[str, str]:
    headers = {
        "From": _mailbox(_checked_text("from_name", content.from_name), sender),
        "To": _mailbox(_checked_text("recipient_name", content.recipient_name), recipient),
    }
    if content.reply_to:
        headers["Reply-To"] = ascii_address(content.reply_to)
    return headers | {
        "Date": format_datetime(_utc(content.date)),
        "Message-ID": _checked_message_id(content.message_id),
        "Auto-Submitted": "auto-generated",
    }


def _part(subtype: str, text: str) -> list[str]:
    """Return the lines of one part, in whichever transfer encoding is shorter; both are short ASCII lines."""
    readable = binascii.b2a_qp(text.encode(), istext=True)
    # Base64 covers the line ends, too, and text travels with CRLF (RFC 2046 4.1.1).
    opaque = binascii.b2a_base64(text.replace("\n", "\r\n").encode(), newline=False)
    if len(readable) <= len(opaque):
        encoding, lines = "quoted-printable", readable.decode("ascii").removesuffix("\n").split("\n")
    else:
        wrapped = (opaque[at : at + _BASE64_LINE] for at in range(0, len(opaque), _BASE64_LINE))
        encoding, lines = "base64", [line.decode("ascii") for line in wrapped]
    return [
        f'Content-Type: text/{subtype}; charset="utf-8"',
        f"Content-Transfer-Encoding: {encoding}",
        "",
        *lines,
    ]


def _grouped(count: int) -> str:
    """Return a count with its thousands apart, by the narrow space that every language reads."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _boundary(delivery_id: str) -> str:
    # "=_" cannot stand in quoted-printable or base64, so no part can hold its own boundary (RFC 2045 6.7).
    return f"=_{hashlib.sha256(delivery_id.encode()).hexdigest()[:32]}"


def _mailbox(name: str, address: str) -> str:
    if not name:
        return address
    if _ATOMS.fullmatch(name) and "=?" not in name:
        return f"{name} <{address}>"
    if name.isascii() and "=?" not in name:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}" <{address}>'
    encoded = _encoded(name, "From")
    room = _HEADER_LINE - len(encoded.rpartition("\n")[2])
    return f"{encoded}{' ' if len(address) < room else _FOLD}<{address}>"


def _encoded(text: str, header: str) -> str:
    """Return a header's text folded by RFC 5322, in encoded words (RFC 2047) where it is not plain ASCII."""
    is_plain = text.isascii() and "=?" not in text
    return Header(
        text, "us-ascii" if is_plain else "utf-8", header_name=header, maxlinelen=_HEADER_LINE
    ).encode(linesep="\r\n")


def _checked_text(name: str, text: str, *, limit: int = MAX_TEXT_CHARACTERS) -> str:
    if _FORBIDDEN.search(text):
        raise _invalid(f"{name} holds a line break or another control character")
    if len(text) > limit:
        raise _invalid(f"{name} is longer than {limit} characters")
    return text


def _checked_url(name: str, url: str) -> str:
    if not _URL.fullmatch(url) or len(url) > MAX_URL_CHARACTERS:
        raise _invalid(f"{name} is no http(s) address of at most {MAX_URL_CHARACTERS} ASCII characters")
    return url


def _checked_message_id(message_id: str) -> str:
    if not _MESSAGE_ID.fullmatch(message_id):
        raise _invalid("the Message-ID is not of the form <name@domain>")
    return message_id


def _utc(moment: dt.datetime) -> dt.datetime:
    if moment.tzinfo is None:
        raise ValueError("the date of an e-mail must be an aware time")
    return moment.astimezone(dt.UTC).replace(microsecond=0)


def _invalid(what: str) -> Permanent:
    return Permanent(
        "credential_data_invalid", f"The e-mail cannot be composed: {what}. Correct it and retry."
    )


def _environment(*, autoescape: bool) -> SandboxedEnvironment:
    return SandboxedEnvironment(
        autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


_HTML: Final = _environment(autoescape=True).from_string(email_templates.LAYOUT)
_TEXT: Final = _environment(autoescape=False).from_string(email_templates.TEXT_LAYOUT)
