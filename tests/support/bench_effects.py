# SPDX-License-Identifier: Apache-2.0
"""The bare effects of one credential in a loop: what any issuer pays, without database, Celery and retries.

Each adapter does its own work for one credential after the other; the relay and the receiver are programs of
their own, so their CPU is not counted. What the pipeline costs is compared with the sum.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conferral.adapters import design_store
from conferral.adapters.address_guard import AddressGuard
from conferral.adapters.blobs import Blobs
from conferral.adapters.pdf import Renderer
from conferral.adapters.qr import qr_svg
from conferral.adapters.smtp import SmtpMailer
from conferral.adapters.webhook_client import WebhookClient
from conferral.domain import data_integrity, vc, webhook_event
from conferral.domain.email_message import compose
from conferral.domain.pdf_attachment import attach
from conferral.domain.tokens import public_token
from conferral.services.signing_shapes import SigningShapes
from support import chaos_peers, sample_credentials, sample_mail
from support.bench_processes import cpu_seconds

WARM_UP = 5
SECRET = webhook_event.generate_secret(bytes(32))


@dataclass
class Effects:
    """CPU milliseconds a credential, by effect, in the order they happen."""

    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def total_ms(self) -> float:
        """All effects of one credential."""
        return sum(self.milliseconds.values())


@dataclass
class _Stand:
    """The adapters of one process, and the credential that is just being made."""

    folder: Path
    mail_port: int
    hook_port: int
    issuer: sample_credentials.Issuer = field(default_factory=sample_credentials.web_issuer)
    shapes: SigningShapes = field(default_factory=SigningShapes)
    base: bytes = b""
    signed: bytes = b""
    final: bytes = b""

    def __post_init__(self) -> None:
        self.version = design_store.materialise(self.folder / "templates", "diploma", {})
        self.renderer = Renderer(self.folder / "templates")
        self.blobs = Blobs(self.folder)
        self.mailer = SmtpMailer("127.0.0.1", self.mail_port, tls="none")
        guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8")], allow_http=True, production=False)
        self.hooks = WebhookClient(guard)

    def render(self, number: int) -> None:
        address = f"{sample_credentials.PUBLIC_URL}/c/{_token(number)}"
        data: dict[str, Any] = {
            "credential": {
                "id": f"cred_{number:026}",
                "recipient_name": f"Ada Lovelace {number}",
                "issued_on": "2026-01-01",
                "expires_on": None,
                "verification_url": address,
                "organisation_name": "Acme University",
                "description": "Sampling, inference and regression.",
                "course": "Applied Statistics",
            },
            "qr": qr_svg(address),
            "test_mode": False,
            "language": "en",
        }
        created = int(sample_credentials.CREATED.timestamp())
        self.base = self.renderer.render(self.version, data, timestamp=created).content

    def sign(self, number: int) -> None:
        content = sample_credentials.content(
            self.issuer,
            recipient_name=f"Ada Lovelace {number}",
            token=_token(number),
            pdf_url=f"{sample_credentials.PUBLIC_URL}/c/{_token(number)}/base.pdf",
            pdf_sha384=hashlib.sha384(self.base).digest(),
        )
        document = vc.build(content)
        options = vc.proof_options(
            data_integrity.EDDSA_RDFC,
            verification_method=content.verification_method,
            created=vc.timestamp(content.created),
            document=document,
        )
        hashed = vc.hash_to_sign(document, options, canonicalise=self.shapes.nquads)
        signed = vc.add_proof(document, options, self.issuer.signer.sign(hashed))
        data_integrity.check_hashed(signed, hashed, self.issuer.signer.public_key)
        self.signed = vc.stored_form(signed)

    def attach(self, _number: int) -> None:
        self.final = attach(self.base, self.signed, sample_credentials.CREATED)

    def store(self, _number: int) -> None:
        self.blobs.put(self.final)
        self.blobs.put(self.signed)

    def mail(self, number: int) -> None:
        content = sample_mail.content(
            recipient_name=f"Ada Lovelace {number}",
            message_id=f"<cred_{number}.issued.1@mail.school.example>",
            delivery_id=f"dlv_{number}",
        )
        self.mailer.send(compose(content))

    def hook(self, number: int) -> None:
        now = datetime.now(UTC)
        data = {"credential_id": f"cred_{number}", "state": "issued", "livemode": False}
        self.hooks.post(
            f"http://127.0.0.1:{self.hook_port}/",
            event_id=f"evt_{number}",
            body=webhook_event.event_body("credential.issued", now, data),
            secrets=SECRET,
            now=now,
        )

    def renderer_pid(self) -> int:
        """Return the process that compiles; it is started by the first document."""
        child = self.renderer._child
        assert child is not None
        return child._process.pid

    def close(self) -> None:
        self.renderer.close()
        self.mailer.close()
        self.hooks.close()


def bare_effects(count: int) -> Effects:
    """Measure `count` credentials, effect by effect; the renderer's child is counted with "render"."""
    with _stand() as stand:
        effects: dict[str, Callable[[int], None]] = {
            "render": stand.render,
            "sign": stand.sign,
            "attach": stand.attach,
            "store": stand.store,
            "mail": stand.mail,
            "webhook": stand.hook,
        }
        for number in range(WARM_UP):
            for effect in effects.values():
                effect(number)
        child = [stand.renderer_pid()]
        spent, before = dict.fromkeys(effects, 0.0), cpu_seconds(child)
        for number in range(WARM_UP, WARM_UP + count):
            for name, effect in effects.items():
                began = time.process_time()
                effect(number)
                spent[name] += time.process_time() - began
        spent["render"] += cpu_seconds(child) - before
    return Effects({name: seconds * 1000 / count for name, seconds in spent.items()})


@contextlib.contextmanager
def _stand() -> Iterator[_Stand]:
    """Yield the adapters with a relay and a receiver that accept everything."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as peers:
        folder = Path(name)
        relay = chaos_peers.mail_relay(folder, seed=1)
        receiver = chaos_peers.webhook_receiver(folder, seed=1)
        for peer in (relay, receiver):
            peers.callback(peer.stop)
            peer.start()
        stand = _Stand(folder, relay.port, receiver.port)
        with contextlib.closing(stand):
            yield stand


def _token(number: int) -> str:
    return public_token(number.to_bytes(16, "big"))
