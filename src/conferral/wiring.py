# SPDX-License-Identifier: Apache-2.0
"""The one place where everything is built: once per process, after fork, from the settings.

A new anchor back end, mail transport or blob store is one file and one line here.
"""

from __future__ import annotations

import hmac
import os
from email.utils import parseaddr
from typing import cast

from celery import Celery
from celery.schedules import crontab, schedule

from conferral import __version__
from conferral.adapters.address_guard import AddressGuard
from conferral.adapters.blobs import Blobs
from conferral.adapters.captured_mail import CaptureMailer
from conferral.adapters.fonts import Fonts
from conferral.adapters.pdf import Renderer
from conferral.adapters.signer import KeyRing
from conferral.adapters.smtp import SmtpMailer, Tls
from conferral.adapters.webhook_client import WebhookClient
from conferral.reliable.app import make_celery
from conferral.reliable.bell import Bell
from conferral.reliable.context import Context
from conferral.reliable.routing import Pool, Routing
from conferral.services import mail_capture
from conferral.services.endpoint_places import EndpointPlaces
from conferral.services.runtime import Runtime
from conferral.services.signing_shapes import SigningShapes
from conferral.settings import PRODUCTION, Settings, SettingsError, key_files
from conferral.settings.model import MASTER_KEY_ROLES, SECRETS_KEY_ROLES
from conferral.store.engine import Database

SENDS_MAIL = frozenset({"mail"})
PUBLISH_SECONDS = 0.3  # a request waits twice as long at most: for the old connection and for a new one
SLOTS_ALONE = 8  # database connections of a process that is no worker

ROUTES = (
    ("tasks.issuance.*", "high_priority"),
    ("tasks.notifications.*", "default"),
    ("tasks.webhooks.*", "webhooks"),
    ("tasks.anchoring.*", "anchoring"),
    ("tasks.reports.*", "low_priority"),
    ("tasks.cleanup.*", "low_priority"),
)
SCHEDULE = {
    "purge_expired_sessions": ("tasks.cleanup.purge_expired_sessions", crontab(hour="2", minute="0")),
    "generate_daily_issuance_report": (
        "tasks.reports.generate_daily_issuance_report",
        crontab(hour="6", minute="0"),
    ),
    "retry_stuck": ("tasks.issuance.retry_stuck", crontab(minute="*/15")),
    "seal_audit_trail": ("tasks.cleanup.seal_audit_trail", crontab(minute="*")),
}


def routing_of(settings: Settings) -> Routing:
    """Return queues, routes and pools; prefork where CPU is spent, threads where waiting is."""
    return Routing(
        routes=ROUTES,
        pools=(
            Pool("hp", "high_priority", "prefork", settings.slots_high_priority, hard_limit_seconds=25),
            Pool("mail", "default", "threads", settings.slots_default),
            Pool("hooks", "webhooks", "threads", settings.slots_webhooks),
            Pool("chain", "anchoring", "threads", settings.slots_anchoring),
            Pool("lp", "low_priority", "prefork", settings.slots_low_priority, hard_limit_seconds=600),
        ),
        rates={"default": settings.smtp_rate} if settings.smtp_rate else None,
    )


def schedule_of(settings: Settings) -> dict[str, dict[str, object]]:
    """Return Beat's entries; CONFERRAL_SCHEDULE replaces times by intervals in development.

    Raises:
        SettingsError: it names a schedule that there is not.
    """
    if unknown := sorted(set(settings.schedule) - set(SCHEDULE)):
        known = ", ".join(SCHEDULE)
        raise SettingsError([f"CONFERRAL_SCHEDULE: there is no schedule {unknown[0]!r}; there are: {known}"])
    return {
        name: {
            "task": task,
            "schedule": schedule(settings.schedule[name]) if name in settings.schedule else when,
        }
        for name, (task, when) in SCHEDULE.items()
    }


def celery_of(settings: Settings, *, publishes_only: bool = False) -> Celery:
    """Return the Celery application; one that only publishes waits a fraction of a second for Redis."""
    return make_celery(
        "conferral",
        broker_url=settings.broker_url,
        result_url=settings.result_url,
        routing=routing_of(settings),
        schedule=schedule_of(settings),
        **({"socket_seconds": PUBLISH_SECONDS} if publishes_only else {}),
    )


def database_of(settings: Settings, app: Celery | None) -> Database:
    """Open the database of this process; with an application its commits ring."""
    routing = routing_of(settings)
    slots = {pool.name: pool.slots if not pool.forks else 1 for pool in routing.pools}
    return Database(
        settings.database_url,
        routing=routing,
        bell=Bell(app) if app is not None else None,
        pool_size=slots.get(settings.role, SLOTS_ALONE) + 2,
        application=f"conferral-{settings.role}",
    )


def build(settings: Settings, app: Celery | None = None) -> Runtime:
    """Build everything a process of this role may use.

    Args:
        settings: checked settings; `role` decides which secrets are opened.
        app: the worker's own application; other processes get one that only publishes.
    """
    if app is None and settings.broker_url:
        app = celery_of(settings, publishes_only=True)
    database = database_of(settings, app)
    secrets_key = settings.read_secrets_key() if settings.role in SECRETS_KEY_ROLES else None
    guard = _guard(settings)
    return Runtime(
        database=database,
        public_url=settings.public_url.rstrip("/"),
        production=settings.env == PRODUCTION,
        blobs=Blobs(settings.data_dir / "blobs"),
        fonts=Fonts(settings.font_dirs, cache_dir=settings.data_dir / "run"),
        templates_folder=settings.data_dir / "templates",
        renderer=Renderer(settings.data_dir / "templates", font_dirs=settings.font_dirs),
        keyring=KeyRing(settings.read_master_key()) if settings.role in MASTER_KEY_ROLES else None,
        signing_shapes=SigningShapes(),
        secrets_key=secrets_key,
        pepper=hmac.digest(secrets_key, b"api keys", "sha256") if secrets_key else b"",
        capture_mailer=CaptureMailer(mail_capture.saver(database)),
        has_mail_server=bool(settings.smtp_host),
        live_mailer=_smtp(settings) if settings.role in SENDS_MAIL else None,
        mail_from=parseaddr(settings.mail_from)[1],
        hold_ambiguous=settings.email_on_ambiguous == "hold",
        webhook_client=_webhook_client(settings, guard),
        endpoint_places=EndpointPlaces(settings.slots_webhooks),
        guard=guard,
        log_origin=settings.log_origin,
        log_batch=settings.log_batch,
        linger_seconds=settings.log_linger_ms / 1000,
    )


def context_of(settings: Settings, runtime: Runtime) -> Context:
    """Return what the reliable layer is handed."""
    return Context(
        transaction=runtime.database.transaction,
        snapshot=runtime.database.snapshot,
        now=runtime.database.now,
        routing=routing_of(settings),
        lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
        sweep_seconds=settings.sweep_seconds,
        retry_scale=settings.retry_scale,
    )


class ProcessRuntime:
    """The runtime of the calling process: built at first use, and again in a forked child."""

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self._settings = settings
        self._app = app
        self._built: Runtime | None = None
        self._pid = 0

    def __call__(self) -> Runtime:
        """Return this process's runtime."""
        if self._built is None or self._pid != os.getpid():
            self._built = build(self._settings, self._app)
            self._pid = os.getpid()
        return self._built

    def adopt(self, runtime: Runtime) -> None:
        """Use a runtime that was built elsewhere; for tests that drive tasks in their own process."""
        self._built, self._pid = runtime, os.getpid()

    def context(self) -> Context:
        """Return this process's context of the reliable layer."""
        return context_of(self._settings, self())


def _guard(settings: Settings) -> AddressGuard:
    return AddressGuard(
        settings.webhook_allow_cidrs,
        allow_http=settings.webhook_allow_http,
        allow_ports=settings.webhook_allow_ports,
        production=settings.env == PRODUCTION,
    )


def _webhook_client(settings: Settings, guard: AddressGuard) -> WebhookClient:
    return WebhookClient(
        guard,
        ca_file=str(settings.webhook_ca_file) if settings.webhook_ca_file else None,
        proxy=settings.webhook_proxy or None,
        user_agent=f"Conferral/{__version__}",
    )


def _smtp(settings: Settings) -> SmtpMailer | None:
    """Return the relay's client; it opens the password file, so only who sends mail builds it."""
    if not settings.smtp_host:
        return None
    password_file = settings.smtp_password_file
    return SmtpMailer(
        settings.smtp_host,
        settings.smtp_port,
        tls=cast("Tls", settings.smtp_tls),
        username=settings.smtp_username or None,
        password=key_files.read_secret(password_file, "the SMTP password") if password_file else None,
        ca_file=str(settings.smtp_ca_file) if settings.smtp_ca_file else None,
        bounce=parseaddr(settings.smtp_bounce)[1] or None,
        idempotency_header=settings.smtp_idempotency_header or None,
    )
