# SPDX-License-Identifier: Apache-2.0
"""The SMTP transport with TLS and credentials, against a server with a certificate of its own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from conferral.adapters.mailer import ChannelPaused
from conferral.adapters.smtp import SmtpDeadlines, SmtpMailer, Tls
from conferral.reliable.errors import Retryable, RunError
from support import sample_mail
from support.fake_smtp import FakeSmtp, Fault, drop, reply

QUICK = SmtpDeadlines(command_seconds=0.3, dot_seconds=0.4, total_seconds=0.8)


def mailer_for(server: FakeSmtp, **options: object) -> SmtpMailer:
    """Return a mailer without TLS for a fake server."""
    return SmtpMailer("127.0.0.1", server.port, **{"tls": "none", **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS context for 127.0.0.1 and the file of the authority that vouches for it."""
    made = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(file)
    return context, file


@pytest.mark.parametrize("mode", ["starttls", "tls"])
def test_message_goes_over_verified_tls_with_credentials(
    authority: tuple[ssl.SSLContext, Path], mode: Tls
) -> None:
    """Both TLS modes verify the server; credentials go over TLS only, also beyond ASCII."""
    context, file = authority
    secret = ("mailer", "pässwörd")
    with FakeSmtp(tls=context, implicit_tls=mode == "tls", credentials=secret) as server:
        mailer = mailer_for(server, tls=mode, username=secret[0], password=secret[1], ca_file=str(file))
        mailer.send(sample_mail.message(number=1))
        mailer.send(sample_mail.message(number=2))
        mailer.close()
    assert len(server.history.accepted()) == 2
    assert server.history.verbs().count("AUTH") == 1


def test_login_is_used_when_the_server_offers_only_that(authority: tuple[ssl.SSLContext, Path]) -> None:
    """Old servers know LOGIN only."""
    context, file = authority
    with FakeSmtp(tls=context, credentials=("mailer", "secret"), mechanisms="LOGIN") as server:
        mailer = mailer_for(server, tls="starttls", username="mailer", password="secret", ca_file=str(file))
        mailer.send(sample_mail.message())
        mailer.close()
    assert len(server.history.accepted()) == 1


@pytest.mark.parametrize(
    ("password", "mechanisms", "fault", "meaning"),
    [
        ("wrong", "PLAIN LOGIN", None, (ChannelPaused, "smtp_auth_failed")),
        ("wrong", "LOGIN", None, (ChannelPaused, "smtp_auth_failed")),
        ("secret", "GSSAPI", None, (ChannelPaused, "smtp_auth_failed")),
        ("secret", "PLAIN", reply("454 4.7.0 later"), (Retryable, "smtp_temporary")),
        ("secret", "PLAIN", reply("421 4.7.0 too many"), (Retryable, "smtp_throttled")),
        ("secret", "PLAIN", drop(), (Retryable, "smtp_unreachable")),
    ],
)
def test_refused_login_pauses_the_channel(
    authority: tuple[ssl.SSLContext, Path],
    password: str,
    mechanisms: str,
    fault: Fault | None,
    meaning: tuple[type[RunError], str],
) -> None:
    """Bad credentials burn no rows: the channel waits, and the user name is not repeated."""
    context, file = authority
    faults = {"auth": [fault]}
    with FakeSmtp(
        tls=context, credentials=("mailer", "secret"), mechanisms=mechanisms, faults=faults
    ) as server:
        mailer = mailer_for(server, tls="starttls", username="mailer", password=password, ca_file=str(file))
        with pytest.raises(RunError) as caught:
            mailer.send(sample_mail.message())
    assert (type(caught.value), caught.value.code) == meaning
    assert caught.value.evidence["stage"] == "auth"
    assert "mailer" not in caught.value.evidence["text"]
    assert "MAIL" not in server.history.verbs()


@pytest.mark.parametrize("mode", ["starttls", "tls"])
def test_unknown_certificate_is_refused(authority: tuple[ssl.SSLContext, Path], mode: Tls) -> None:
    """A server that cannot prove who it is gets neither credentials nor mail."""
    context, _ = authority
    with FakeSmtp(tls=context, implicit_tls=mode == "tls", credentials=("mailer", "secret")) as server:
        mailer = mailer_for(server, tls=mode, username="mailer", password="secret", limits=QUICK)
        with pytest.raises(Retryable) as caught:
            mailer.send(sample_mail.message())
    assert caught.value.code == "smtp_unreachable"
    assert {"AUTH", "MAIL"}.isdisjoint(server.history.verbs())


@pytest.mark.parametrize("fault", [None, reply("454 4.7.0 TLS not available")])
def test_missing_starttls_is_never_downgraded(
    authority: tuple[ssl.SSLContext, Path], fault: Fault | None
) -> None:
    """A server without STARTTLS gets nothing in clear text."""
    context = authority[0] if fault is not None else None
    with FakeSmtp(tls=context, faults={"starttls": [fault]}) as server:
        mailer = mailer_for(server, tls="starttls")
        with pytest.raises(Retryable) as caught:
            mailer.send(sample_mail.message())
    assert (caught.value.code, caught.value.evidence["stage"]) == ("smtp_unreachable", "starttls")
    assert "MAIL" not in server.history.verbs()


def test_credentials_without_tls_are_refused_when_the_mailer_is_built() -> None:
    """A password never travels in clear text, whatever the settings say."""
    with pytest.raises(ValueError, match="CONFERRAL_SMTP_TLS"):
        SmtpMailer("127.0.0.1", 25, tls="none", username="mailer", password="secret")
