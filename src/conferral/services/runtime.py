# SPDX-License-Identifier: Apache-2.0
"""The frozen bundle that services are handed: what this process may use, and nothing else.

A process gets only the secrets its role needs: `keyring` (signing keys) exists where
credentials are signed, `secrets_key` where webhooks are signed and mail is suppressed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from uuid import UUID

from conferral.adapters.address_guard import AddressGuard
from conferral.adapters.blobs import Blobs
from conferral.adapters.fonts import Fonts
from conferral.adapters.mailer import Mailer
from conferral.adapters.pdf import Renderer
from conferral.adapters.signer import KeyRing
from conferral.adapters.webhook_client import WebhookClient
from conferral.domain.credential import Mode
from conferral.domain.ids import prefixed
from conferral.reliable.errors import Retryable
from conferral.reliable.ids import new_run_id
from conferral.services.endpoint_places import EndpointPlaces
from conferral.services.signing_shapes import SigningShapes
from conferral.store.engine import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Everything a service may touch.

    Attributes:
        public_url: without a trailing slash; every link and DID is built from it.
        mail_from: the address mails are sent from.
        has_mail_server: False while none is configured: live mail is captured, too.
        live_mailer: only where mail is sent from; it holds the relay's password.
        hold_ambiguous: a mail whose end is unknown waits for a person instead of going again.
        log_batch: leaves a turn of the sequencer takes at most.
        linger_seconds: the least age of a checkpoint before the next one.
        pepper: mixed into the digests of API keys.
    """

    database: Database
    public_url: str
    production: bool
    blobs: Blobs
    fonts: Fonts
    templates_folder: Path
    renderer: Renderer
    keyring: KeyRing | None
    signing_shapes: SigningShapes
    secrets_key: bytes | None
    pepper: bytes
    capture_mailer: Mailer
    has_mail_server: bool
    live_mailer: Mailer | None
    mail_from: str
    hold_ambiguous: bool
    webhook_client: WebhookClient
    endpoint_places: EndpointPlaces
    guard: AddressGuard
    log_origin: str
    log_batch: int
    linger_seconds: float

    def new_id(self, prefix: str) -> str:
        """Return a fresh id of a kind: sorted by time, 74 random bits."""
        return prefixed(prefix, UUID(new_run_id()).int)

    def random(self, count: int) -> bytes:
        """Return random bytes fit for secrets."""
        return secrets.token_bytes(count)

    def today(self) -> date:
        """Return today's date in UTC."""
        return self.database.now().date()

    def mailer(self, mode: str) -> Mailer:
        """Return the mailer of a mode; test mail never leaves the house."""
        if mode == "test" or not self.has_mail_server:
            return self.capture_mailer
        if self.live_mailer is None:
            raise Retryable("internal", "this process does not send mail")
        return self.live_mailer

    def need_keyring(self) -> KeyRing:
        """Return the key ring, or fail retryably in a process that holds no master key."""
        if self.keyring is None:
            raise Retryable("signing_key_unavailable", "this process holds no master key")
        return self.keyring

    def need_secrets_key(self) -> bytes:
        """Return the secrets key, or fail in a process that does not hold it."""
        if self.secrets_key is None:
            raise Retryable("internal", "this process holds no secrets key")
        return self.secrets_key

    def url(self, path: str) -> str:
        """Return a public URL."""
        return f"{self.public_url}{path}"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is done.

    Attributes:
        actor: `key:<id>`, `user:<id>`, `cli` or `system`; stands in the audit log.
    """

    organisation_id: str
    mode: Mode
    actor: str
    scopes: frozenset[str]
    request_id: str | None = None


MakeRuntime = Callable[[], Runtime]
