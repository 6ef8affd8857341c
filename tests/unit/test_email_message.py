# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
import email
import hashlib
from email import policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from conferral.domain import email_templates
from conferral.domain.email_message import EmailMessageBytes, ascii_address, compose, compose_report
from conferral.reliable.errors import Permanent
from support import sample_mail

GOLDEN = Path(__file__).parent / "golden"
EVIL = [
    "{{7*7}}",
    "{% for a in b %}",
    "${7*7}",
    "{{ ''.__class__ }}",
    "{recipient.name}",
    "<script>alert(1)</script>",
]


def parsed(message: EmailMessageBytes) -> EmailMessage:
    """Read a message as a mail program would."""
    read = email.message_from_bytes(message.content, policy=policy.default)
    assert isinstance(read, EmailMessage)
    assert read.defects == []
    return read


def part(message: EmailMessageBytes, kind: str) -> str:
    """Return the text of one part."""
    body = parsed(message).get_body((kind,))
    assert body is not None
    return str(body.get_content())


@pytest.mark.parametrize("locale", email_templates.LOCALES)
def test_bytes_stay_the_same_when_nothing_was_decided(locale: str) -> None:
    """Changing one byte of a composed e-mail is a decision: a repeat must equal what went before an upgrade.

    To decide it: `python tests/unit/test_email_message.py` writes the files anew.
    """
    for name, message in golden(locale).items():
        assert message.content == (GOLDEN / name).read_bytes(), name


def golden(locale: str) -> dict[str, EmailMessageBytes]:
    """Return the messages that are kept as files."""
    return {
        f"email_issued_{locale}.eml": compose(sample_mail.content(locale=locale)),
        f"email_report_{locale}.eml": compose_report(sample_mail.report(locale=locale, test_mode=True)),
    }


def test_bytes_are_identical_at_every_attempt() -> None:
    """Every attempt sends the same bytes, whose SHA-256 is recorded."""
    first, second = compose(sample_mail.content()), compose(sample_mail.content()).at_attempt(7)
    assert first.content == second.content
    assert first.sha256 == second.sha256 == hashlib.sha256(first.content).hexdigest()


def test_headers_say_who_when_and_how_to_stop() -> None:
    """The headers of the design stand in every e-mail, with names beyond ASCII readable."""
    message = compose(sample_mail.content(from_name="École d'été, Genève"))
    read = parsed(message)
    assert read["From"] == '"École d\'été, Genève" <credentials@mail.school.example>'
    assert read["To"] == "Zoë Müller <zoe.mueller@students.example>"
    assert read["Reply-To"] == "office@school.example"
    assert read["Subject"] == "Your credential: Introduction to Databases"
    assert read["Date"] == "Sat, 14 Mar 2026 09:26:53 +0000"
    assert read["Message-ID"] == message.message_id == "<cred_01hx.issued.1@mail.school.example>"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["List-Unsubscribe"] == "<https://credentials.school.example/u/9kLm3>"
    assert read["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert read["X-Credential-Id"] == "cred_01hx"
    assert read["Feedback-ID"] == "issued:org_01hx:conferral:conferral"


def test_lines_are_short_and_end_in_crlf_whatever_the_names() -> None:
    """No relay has to re-wrap a message, which would break its DKIM signature."""
    message = compose(
        sample_mail.content(
            credential_title="数据库导论 " * 60 + "!",
            recipient_name="أ" * 300,
            organisation_name="word " * 99,
        )
    )
    lines = message.content.split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert b"\n" not in message.content.replace(b"\r\n", b"")
    assert message.content.isascii()
    assert parsed(message)["Subject"] == f"Your credential: {'数据库导论 ' * 60}!"


def test_date_is_utc_whatever_zone_it_came_in() -> None:
    """The Date header is when the delivery was created, in UTC."""
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    moved = compose(sample_mail.content(date=sample_mail.CREATED_AT.astimezone(zone)))
    assert moved.content == compose(sample_mail.content()).content


def test_naive_date_is_refused() -> None:
    """A time without a zone is a programming error, not a guess."""
    with pytest.raises(ValueError, match="aware"):
        compose(sample_mail.content(date=dt.datetime(2026, 1, 1)))  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize(
    "field",
    ["from_name", "recipient_name", "organisation_name", "credential_title", "credential_id", "message_id"],
)
@pytest.mark.parametrize(
    "payload", ["\r\nBcc: spy@evil.example", "\nSubject: x", "a\x00b", "a\x85b", "a\u202eb", "\u2028"]
)
def test_control_characters_are_refused_in_every_field(field: str, payload: str) -> None:
    """No field can add a header, a recipient or turn the text around."""
    with pytest.raises(Permanent) as caught:
        compose(sample_mail.content(**{field: f"x{payload}"}))
    assert caught.value.code == "credential_data_invalid"
    assert "spy" not in caught.value.detail


@pytest.mark.parametrize("field", ["credential_url", "unsubscribe_url"])
@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "https://a.example/ b", "https://a.example/>,<mailto:x", "https://ü.example", ""],
)
def test_links_must_be_http_addresses(field: str, url: str) -> None:
    """A link is http(s) in ASCII: it stands in a header and in an attribute."""
    if field == "unsubscribe_url" and not url:
        return
    with pytest.raises(Permanent):
        compose(sample_mail.content(**{field: url}))


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("field", ["recipient_name", "organisation_name", "credential_title", "from_name"])
def test_data_is_never_evaluated_or_markup(field: str, evil: str) -> None:
    """What users give is text: never a template, never a placeholder, never HTML."""
    message = compose(sample_mail.content(**{field: evil}))
    text, html = part(message, "plain"), part(message, "html")
    assert "<script>" not in html
    assert "49" not in html + text
    if field != "from_name":
        assert evil in text


@pytest.mark.parametrize("evil", EVIL)
def test_wording_of_an_organisation_is_never_a_template(evil: str) -> None:
    """An organisation edits sentences with fixed placeholders, not Jinja."""
    ours = email_templates.language("en").kinds["issued"]
    own = email_templates.Wording(**{**vars(ours), "paragraphs": (f"Dear {{recipient.name}} {evil}",)})
    message = compose(sample_mail.content(wording=own))
    expected = evil.replace("{recipient.name}", "Zoë Müller")
    assert f"Dear Zoë Müller {expected}" in part(message, "plain")
    assert "<script>" not in part(message, "html")


def test_unknown_placeholders_are_named() -> None:
    """A form can refuse a wording whose placeholder nothing would replace."""
    ours = email_templates.language("en").kinds["issued"]
    own = email_templates.Wording(**{**vars(ours), "heading": "Hi {recipient.nam} {recipient.name}"})
    assert own.unknown_placeholders() == ("recipient.nam",)
    for locale in email_templates.LOCALES:
        for wording in email_templates.language(locale).kinds.values():
            assert wording.unknown_placeholders() == ()


@pytest.mark.parametrize("locale", email_templates.LOCALES)
def test_both_parts_link_to_the_credential_in_every_language(locale: str) -> None:
    """Text and HTML lead to the credential page; right-to-left languages are set so."""
    message = compose(sample_mail.content(locale=locale))
    text, html = part(message, "plain"), part(message, "html")
    assert "https://credentials.school.example/c/4fGh2" in text
    assert html.count('href="https://credentials.school.example/c/4fGh2"') == 2
    assert f'<html lang="{locale}" dir="{"rtl" if locale == "ar" else "ltr"}">' in html
    assert "{" not in text
    assert "https://credentials.school.example/u/9kLm3" in text


@pytest.mark.parametrize("locale", ["es-MX", "ES", "es_AR"])
def test_regional_locale_reads_its_language(locale: str) -> None:
    """A region we have no wording for reads the language; an unknown language reads English."""
    assert parsed(compose(sample_mail.content(locale=locale)))["Content-Language"] == "es"
    assert parsed(compose(sample_mail.content(locale="tlh")))["Content-Language"] == "en"


def test_test_mode_is_said_in_both_parts() -> None:
    """Nobody takes a test for a real credential."""
    message = compose(sample_mail.content(test_mode=True))
    assert "Test mode" in part(message, "plain")
    assert "Test mode" in part(message, "html")
    assert "Test mode" not in part(compose(sample_mail.content()), "html")


def test_report_lists_the_figures_it_was_given() -> None:
    """The owners' report shows each figure and only those, and no unsubscribe link."""
    message = compose_report(sample_mail.report())
    text = part(message, "plain")
    assert "Credentials issued: 1\u202f994" in text
    assert "Webhooks" not in text
    assert parsed(message)["Subject"] == "Issuance report for 2026-03-13"
    assert parsed(message)["List-Unsubscribe"] is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("zoe@bücher.example", "zoe@xn--bcher-kva.example"),
        ("Zoe@EXAMPLE.org", "Zoe@example.org"),
        ("zoe@faß.example", "zoe@xn--fa-hia.example"),  # IDNA 2003 would make "fass" of it
        ("用户@例子.example", "用户@xn--fsqu00a.example"),
        ("a+b@x-y.example", "a+b@x-y.example"),
    ],
)
def test_domains_become_ascii_by_idna_2008(address: str, expected: str) -> None:
    """Relays get an ASCII domain; the local part is the recipient's own."""
    assert ascii_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        *(
            "",
            "zoe",
            "@x.example",
            "zoe@",
            "a b@x.example",
            "a@b@x.example",
            ".a@x.example",
            "a..b@x.example",
        ),
        *('"a b"@x.example', "a@[127.0.0.1]", "a@x_y.example", "a@-x.example", "a@x..example"),
        *(f"{'a' * 65}@x.example", "a\r\nb@x.example", "a<b>@x.example", "a,b@x.example"),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    """An address that a relay might read differently is never put on an envelope."""
    with pytest.raises(Permanent) as caught:
        ascii_address(address)
    assert caught.value.code == "credential_data_invalid"


def test_non_ascii_local_part_needs_smtputf8() -> None:
    """Only the local part decides; the header then stands in UTF-8."""
    message = compose(sample_mail.content(recipient_address="用户@例子.example"))
    assert message.needs_smtputf8
    assert "用户@xn--fsqu00a.example".encode() in message.content
    assert not compose(sample_mail.content(recipient_address="zoe@例子.example")).needs_smtputf8


@pytest.mark.parametrize(
    "content", [b"a: b\n\nx\n", b"a: b\r\n\r\nx\n.\r\n", b"a: b\r\n\r\nx\r.\r\n", b"a: b\r\n\r\nx"]
)
def test_bare_line_ends_are_refused(content: bytes) -> None:
    """No message can smuggle a second one past a relay that takes bare line ends (CVE-2023-51764)."""
    with pytest.raises(ValueError, match="CR"):
        EmailMessageBytes(
            content=content,
            envelope_from="a@x.example",
            envelope_to="b@x.example",
            message_id="<a@x.example>",
            delivery_id="dlv_1",
            sha256="",
        )


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in email_templates.LOCALES:
        for file, made in golden(each).items():
            (GOLDEN / file).write_bytes(made.content)
