# SPDX-License-Identifier: Apache-2.0
"""How settings must fit together, and what production refuses: one sentence for each broken rule.

A sentence names the setting, what is wrong and what would be right. It never holds a secret.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conferral.settings.kinds import HIGHEST_PORT

# Three missed heartbeats must pass before a lease runs out, or one slow commit loses a run.
HEARTBEATS_PER_LEASE = 3
# Names that never resolve elsewhere; recipients would get links to their own machine.
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
# Passwords of tutorials: whoever finds the port tries these first.
_WEAK_PASSWORDS = frozenset(
    {"", "admin", "changeme", "conferral", "password", "postgres", "redis", "secret", "test"}
)
_NEVER_IN_PRODUCTION = tuple(
    ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10")
)
# Where `conferral up` keeps the login of the demo organisation.
DEMO_FILE = "demo.json"


def broken(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each rule that the settings break."""
    yield from _ports(values)
    yield from _mail(values)
    if values["heartbeat_seconds"] * HEARTBEATS_PER_LEASE > values["lease_seconds"]:
        most = values["lease_seconds"] / HEARTBEATS_PER_LEASE
        yield (
            f"CONFERRAL_HEARTBEAT_SECONDS={values['heartbeat_seconds']:g} is too long for a lease of "
            f"{values['lease_seconds']:g} s; allowed: at most {most:g}"
        )
    if values["env"] == "production":
        yield from _production(values)


def _ports(values: Mapping[str, Any]) -> Iterator[str]:
    taken: dict[int, str] = {}
    for name in ("http_port", "stream_port", "metrics_port", "flower_port"):
        port = values[name]
        variable = f"CONFERRAL_{name.upper()}"
        if port > HIGHEST_PORT:
            yield f"{variable}={port} is out of range; allowed: 1 to {HIGHEST_PORT}"
        if port in taken:
            yield f"{variable}={port} is the same port as {taken[port]}; give each its own"
        taken[port] = variable


def _mail(values: Mapping[str, Any]) -> Iterator[str]:
    if values["smtp_username"] and values["smtp_tls"] == "none":
        yield "CONFERRAL_SMTP_USERNAME would cross the network in clear; use CONFERRAL_SMTP_TLS=starttls"
    if values["smtp_username"] and values["smtp_password_file"] is None:
        yield "CONFERRAL_SMTP_PASSWORD_FILE is missing; CONFERRAL_SMTP_USERNAME needs it"
    for name in ("smtp_password_file", "smtp_ca_file", "webhook_ca_file"):
        path: Path | None = values[name]
        if path is not None and not path.is_file():
            yield f"CONFERRAL_{name.upper()}={str(path)!r} is not a file"
    for directory in values["font_dirs"]:
        if not directory.is_dir():
            yield f"CONFERRAL_FONT_DIRS holds {str(directory)!r}, which is not a directory"


def _production(values: Mapping[str, Any]) -> Iterator[str]:
    public = urlsplit(values["public_url"])
    if public.scheme != "https":
        yield f"CONFERRAL_PUBLIC_URL={values['public_url']!r} is not https; production needs https"
    if public.hostname in _LOCAL_HOSTS:
        yield f"CONFERRAL_PUBLIC_URL={values['public_url']!r} is this machine; recipients need a public name"
    if not values["smtp_host"]:
        yield "CONFERRAL_SMTP_HOST is missing; production sends real mail"
    if values["mail_from"].endswith("@localhost>"):
        yield "CONFERRAL_MAIL_FROM is missing; production needs a sender of your domain"
    if values["crash_at"]:
        yield "CONFERRAL_CRASH_AT is for tests; production refuses it"
    if values["retry_scale"] != 1:
        yield f"CONFERRAL_RETRY_SCALE={values['retry_scale']:g} is for tests; production needs 1"
    if values["schedule"]:
        yield "CONFERRAL_SCHEDULE is for tests; production refuses it"
    for network in values["webhook_allow_cidrs"]:
        if any(
            network.version == never.version and network.overlaps(never) for never in _NEVER_IN_PRODUCTION
        ):
            yield f"CONFERRAL_WEBHOOK_ALLOW_CIDRS holds {network}, which reaches loopback or link-local"
    yield from _weak_secrets(values)


def _weak_secrets(values: Mapping[str, Any]) -> Iterator[str]:
    for name in ("redis_url", "broker_url", "result_url", "database_url"):
        parts = urlsplit(values[name])
        is_network = bool(parts.hostname) and parts.hostname not in _LOCAL_HOSTS
        if is_network and (parts.password or "") in _WEAK_PASSWORDS:
            yield f"CONFERRAL_{name.upper()} needs a password that nobody can guess in production"
    if (values["data_dir"] / "keys" / DEMO_FILE).exists():
        yield (
            f"CONFERRAL_DATA_DIR={str(values['data_dir'])!r} holds the demo login of a development "
            "installation; start production with a data directory of its own"
        )
