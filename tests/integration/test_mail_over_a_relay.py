# SPDX-License-Identifier: Apache-2.0
"""A live credential's mail over a real SMTP server, built by the wiring of the mail role alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from conferral import wiring
from conferral.adapters.smtp import SmtpMailer
from conferral.reliable.errors import Retryable
from conferral.settings import Settings
from support.fake_smtp import FakeSmtp
from support.product import Product, product_on


def _with_relay(product: Product, port: int, role: str) -> wiring.Runtime:
    environ = {
        "CONFERRAL_DATA_DIR": str(product.settings.data_dir),
        "CONFERRAL_SMTP_HOST": "127.0.0.1",
        "CONFERRAL_SMTP_PORT": str(port),
        "CONFERRAL_SMTP_TLS": "none",
        "CONFERRAL_MAIL_FROM": "Registry <registry@uni.example>",
    }
    return wiring.build(Settings.from_env(environ, role=role))


def test_only_the_mail_role_can_send_when_a_relay_is_configured(tmp_path: Path) -> None:
    """Elsewhere a live mail is neither captured by mistake nor sent with a password nobody needs there."""
    with FakeSmtp() as relay, product_on("sqlite", tmp_path) as product:
        mail, web = (_with_relay(product, relay.port, role) for role in ("mail", "web"))
        try:
            assert mail.live_mailer is not None
            assert mail.mailer("live") is mail.live_mailer
            assert mail.mailer("test") is mail.capture_mailer
            assert web.live_mailer is None
            with pytest.raises(Retryable):
                web.mailer("live")
        finally:
            mail.database.dispose()
            web.database.dispose()


def test_the_recipient_gets_the_mail_when_a_live_credential_is_issued(tmp_path: Path) -> None:
    """The message arrives at the server under its Message-ID, and the mailbox stays empty."""
    with FakeSmtp() as relay, product_on("sqlite", tmp_path) as product:
        sends = _with_relay(product, relay.port, "mail")
        product.use(
            dataclasses.replace(
                product.rt,
                has_mail_server=True,
                live_mailer=sends.live_mailer,
                mail_from=sends.mail_from,
            )
        )
        product.caller = dataclasses.replace(product.caller, mode="live")
        accepted = product.request()
        product.run()
        assert isinstance(sends.live_mailer, SmtpMailer)
        sends.live_mailer.close()
        sends.database.dispose()
    (message,) = relay.history.messages
    expected = f"<{accepted.credential_id}.issued.1@uni.example>".encode()
    assert expected in message.content
    assert message.envelope_to == ("ada@example.com",)
