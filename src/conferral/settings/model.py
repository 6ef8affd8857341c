# SPDX-License-Identifier: Apache-2.0
"""Every setting of Conferral: name, type, default, unit and meaning, as data.

The variable of a field is CONFERRAL_ and the field's name in capitals. docs/reference/settings.md is
generated from this file. A value is never read from anywhere else, and secrets stay out of `repr`.
"""

# ruff: noqa: RUF009 -- `setting` returns a dataclass field, which is what a default may be here.

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from conferral.settings import key_files, kinds
from conferral.settings.errors import SettingsError
from conferral.settings.kinds import Derived, Described, Network, setting

if TYPE_CHECKING:
    from typing import Self

DEVELOPMENT = "development"
PRODUCTION = "production"

# Which process reads these settings. It decides which key files may be opened.
ROLES = ("cli", "up", "web", "streams", "hp", "mail", "hooks", "chain", "lp", "beat", "flower")
MASTER_KEY_ROLES = frozenset({"hp", "chain"})
SECRETS_KEY_ROLES = frozenset({"web", "streams", "mail", "hooks", "cli"})

# More than this many slots in one process is a mistake, not a machine.
MOST_SLOTS = 512
# CPU work gains nothing beyond the cores; more than eight renderer children cost memory instead.
CPU_SLOTS = (2, 8)
# Loopback is opened to webhooks in development only, so that a listener on the same machine works.
LOOPBACK = kinds.CIDRS.parse("127.0.0.0/8,::1/128")


def cores() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _beside(name: str, folder: str) -> Derived:
    return Derived(f"`{folder}` in the data directory", lambda known: known["data_dir"] / name)


def _same_server(database: int) -> Derived:
    """Name a numbered database on the Redis server that CONFERRAL_REDIS_URL names."""

    def compute(known: Mapping[str, Any]) -> str:
        if not known["redis_url"]:
            return ""
        return str(urlsplit(known["redis_url"])._replace(path=f"/{database}").geturl())

    return Derived(f"database {database} of CONFERRAL_REDIS_URL", compute)


def _next_port(steps: int) -> Derived:
    return Derived(f"CONFERRAL_HTTP_PORT + {steps}", lambda known: known["http_port"] + steps)


def _stream_url(known: Mapping[str, Any]) -> str:
    parts = urlsplit(known["public_url"])
    if parts.port == known["http_port"] and parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        return f"{parts.scheme}://{parts.netloc.rpartition(':')[0]}:{known['stream_port']}"
    return str(known["public_url"])


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """All settings of one process, checked; made by `Settings.from_env`."""

    env: str = setting(
        kinds.choice(DEVELOPMENT, PRODUCTION),
        DEVELOPMENT,
        "Production refuses what is only safe on a developer's machine.",
    )
    role: str = setting(
        kinds.choice(*ROLES),
        "cli",
        "Which process this is; set by `conferral api`, `worker` and the others, not by hand.",
    )
    data_dir: Path = setting(
        kinds.PATH,
        Derived("`./var` in a checkout, else `~/.local/share/conferral`", lambda known: known["home"]),
        "Database, files, keys and logs; created with mode 0700.",
    )
    database_url: str = setting(
        kinds.url("sqlite", "postgresql", "postgres", "postgresql+psycopg"),
        Derived(
            "`conferral.db` in the data directory",
            lambda known: f"sqlite:///{known['data_dir']}/conferral.db",
        ),
        "The database. PostgreSQL for more than one host or more than a few hundred requests a minute.",
        secret=True,
    )
    redis_url: str = setting(
        kinds.url("redis", "rediss", "unix"),
        Derived("the one that `conferral up` starts or runs", lambda _: ""),
        "A Redis or Valkey server (6.2 or newer, noeviction, password).",
        secret=True,
    )
    broker_url: str = setting(
        kinds.url("redis", "rediss", "unix", "amqp", "amqps"),
        _same_server(0),
        "Where task messages go.",
        secret=True,
    )
    result_url: str = setting(
        kinds.url("redis", "rediss", "unix"),
        _same_server(1),
        "Where results for `AsyncResult` are kept for a short time.",
        secret=True,
    )
    extras: str = setting(
        kinds.TEXT, "", "Optional parts that `./run` installs, separated by spaces; read by `./run` only."
    )

    http_host: str = setting(kinds.TEXT, "127.0.0.1", "Address on which the web and stream servers listen.")
    http_port: int = setting(kinds.PORT, 8000, "Port of pages and API.")
    stream_port: int = setting(kinds.PORT, _next_port(1), "Port of live streams.")
    metrics_port: int = setting(kinds.PORT, _next_port(2), "Port of `/metrics`; never expose it.")
    flower_port: int = setting(kinds.PORT, 5555, "Port of Flower, always on loopback.")
    public_url: str = setting(
        kinds.url("http", "https", path=False),
        Derived(
            "`http://localhost:` and CONFERRAL_HTTP_PORT",
            lambda known: f"http://localhost:{known['http_port']}",
        ),
        "Address under which recipients reach this installation. It stands in every credential and QR code.",
    )
    stream_url: str = setting(
        kinds.url("http", "https", path=False),
        Derived("CONFERRAL_PUBLIC_URL, or the stream port on loopback", _stream_url),
        "Address under which browsers reach the streams.",
    )
    trusted_proxies: tuple[Network, ...] = setting(
        kinds.CIDRS,
        (),
        "Proxies whose X-Forwarded headers are believed.",
    )
    web_workers: int = setting(
        kinds.whole(1, 64),
        Derived("cores, at least 2", lambda _: max(2, cores())),
        "Processes of the web server.",
    )

    anchors: tuple[str, ...] = setting(kinds.choices("log"), ("log",), "Where credentials are anchored.")
    log_origin: str = setting(
        kinds.ORIGIN,
        Derived(
            "host of CONFERRAL_PUBLIC_URL and `/log`",
            lambda known: f"{urlsplit(known['public_url']).netloc}/log",
        ),
        "Name of the transparency log; frozen with its first leaf.",
    )
    log_batch: int = setting(
        kinds.whole(1, 10_000), 1000, "Most leaves that one turn of the sequencer takes."
    )
    log_linger_ms: int = setting(
        kinds.whole(0, 10_000),
        100,
        "Least time between two checkpoints of a busy log.",
        unit="ms",
    )
    font_dirs: tuple[Path, ...] = setting(kinds.PATHS, (), "More directories with TTF, OTF or TTC fonts.")
    master_key_file: Path = setting(
        kinds.PATH,
        _beside("keys/master.key", "keys/master.key"),
        "Seals the signing keys; opened by the hp and chain processes only.",
    )
    secrets_key_file: Path = setting(
        kinds.PATH,
        _beside("keys/secrets.key", "keys/secrets.key"),
        "Seals webhook secrets; opened by the web, mail and hooks processes and the command line only.",
    )

    slots_high_priority: int = setting(
        kinds.whole(1, MOST_SLOTS),
        Derived("cores, 2 to 8", lambda _: min(max(cores(), CPU_SLOTS[0]), CPU_SLOTS[1])),
        "Credentials rendered and signed at once; each slot has a renderer process.",
    )
    slots_default: int = setting(
        kinds.whole(1, MOST_SLOTS), 8, "E-mails sent at once; each slot keeps one SMTP connection."
    )
    slots_webhooks: int = setting(kinds.whole(1, MOST_SLOTS), 32, "Webhooks posted at once.")
    slots_anchoring: int = setting(
        kinds.whole(2, MOST_SLOTS),
        Derived("anchors + 2", lambda known: len(known["anchors"]) + 2),
        "Anchoring work at once; a hanging chain must leave one for the log.",
    )
    slots_low_priority: int = setting(
        kinds.whole(1, MOST_SLOTS), 2, "Reports, archives and cleaning at once."
    )

    lease_seconds: float = setting(
        kinds.number(1, 3600),
        30.0,
        "How long a run stays with a worker that shows no sign of life.",
        unit="s",
    )
    heartbeat_seconds: float = setting(
        kinds.number(0.2, 1200),
        10.0,
        "How often a worker renews its leases; at most a third of the lease.",
        unit="s",
    )
    sweep_seconds: float = setting(
        kinds.number(0.05, 60),
        0.5,
        "The dispatcher's pause between two looks at what is due.",
        unit="s",
    )
    retry_scale: float = setting(
        kinds.number(0, 1000),
        1.0,
        "Multiplies every retry delay; 1 in production.",
    )
    schedule: Mapping[str, float] = setting(
        kinds.INTERVALS,
        Derived("", lambda _: {}),
        "Replaces the times of schedules by intervals, to see them fire; refused in production.",
        unit="s",
    )
    crash_at: str = setting(
        kinds.TEXT,
        "",
        "Kills the process at a named point, `point[:nth][,task]`, or at those that files in a folder name; "
        "for tests, refused in production.",
    )

    mail_from: str = setting(
        kinds.SENDER,
        "Conferral <credentials@localhost>",
        "Sender of every e-mail; required in production.",
    )
    smtp_host: str = setting(kinds.TEXT, "", "Mail relay; empty: mail is captured and shown in the mailbox.")
    smtp_tls: str = setting(
        kinds.choice("starttls", "tls", "none"), "starttls", "How the connection is encrypted."
    )
    smtp_port: int = setting(
        kinds.PORT,
        Derived(
            "587, 465 or 25, by CONFERRAL_SMTP_TLS",
            lambda known: {"starttls": 587, "tls": 465, "none": 25}[known["smtp_tls"]],
        ),
        "Port of the relay.",
    )
    smtp_username: str = setting(kinds.TEXT, "", "Login at the relay; needs TLS and a password file.")
    smtp_password_file: Path | None = setting(
        kinds.PATH, Derived("", lambda _: None), "File that holds the relay's password."
    )
    smtp_ca_file: Path | None = setting(
        kinds.PATH,
        Derived("", lambda _: None),
        "Certificates trusted for the relay, beside the system's.",
    )
    smtp_bounce: str = setting(
        kinds.SENDER,
        "",
        "Envelope sender for bounces; each mail adds its token after a plus sign.",
    )
    smtp_rate: float = setting(
        kinds.number(0, 10_000), 0.0, "Most e-mails a second; 0 is no limit.", unit="1/s"
    )
    smtp_idempotency_header: str = setting(
        kinds.HEADER_NAME,
        "",
        "Header in which the relay takes a key that makes repeated mails one.",
    )
    email_on_ambiguous: str = setting(
        kinds.choice("resend", "hold"),
        "resend",
        "When the relay's last answer is lost: send the same bytes again, or wait for a person.",
    )

    vc_api_issue: bool = setting(
        kinds.SWITCH,
        default=False,
        meaning="Let keys have documents of their own signed at `/vc-api/credentials/issue`.",
    )

    webhook_allow_cidrs: tuple[Network, ...] = setting(
        kinds.CIDRS,
        Derived(
            "loopback in development, none in production",
            lambda known: LOOPBACK if known["env"] == DEVELOPMENT else (),
        ),
        "Private networks that webhooks may reach.",
    )
    webhook_allow_ports: tuple[int, ...] = setting(
        kinds.PORTS,
        Derived(
            "443,8443 in production, all in development",
            lambda known: (443, 8443) if known["env"] == PRODUCTION else (),
        ),
        "Ports that webhooks may reach.",
    )
    webhook_allow_http: bool = setting(
        kinds.SWITCH,
        Derived("1 in development, 0 in production", lambda known: known["env"] == DEVELOPMENT),
        "Allow plain http to the networks of CONFERRAL_WEBHOOK_ALLOW_CIDRS.",
    )
    webhook_proxy: str = setting(kinds.url("http", "https"), "", "Proxy for all webhooks.", secret=True)
    webhook_ca_file: Path | None = setting(
        kinds.PATH,
        Derived("", lambda _: None),
        "Certificates trusted for webhooks, beside the system's.",
    )

    alive_directory: Path = setting(
        kinds.PATH,
        _beside("run", "run"),
        "Where each worker leaves its sign of life; set by `conferral worker`.",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, role: str | None = None) -> Self:
        """Read and check all settings.

        Args:
            environ: the variables, usually `os.environ`; an empty value counts as not set.
            role: the process, when it is not named by CONFERRAL_ROLE.

        Raises:
            SettingsError: with one line for everything that is wrong.
        """
        from conferral.settings import reading

        return cls(**reading.read(environ, describe(), role=role))

    @property
    def is_production(self) -> bool:
        """Whether this installation serves real recipients."""
        return self.env == PRODUCTION

    @property
    def blobs_dir(self) -> Path:
        """Files by digest: PDF and credential bytes."""
        return self.data_dir / "blobs"

    @property
    def templates_dir(self) -> Path:
        """Template versions as the renderer reads them, by digest."""
        return self.data_dir / "templates"

    @property
    def keys_dir(self) -> Path:
        """Key files and generated passwords, each with mode 0600."""
        return self.data_dir / "keys"

    @property
    def run_dir(self) -> Path:
        """What belongs to the running processes: locks, signs of life, status."""
        return self.data_dir / "run"

    @property
    def logs_dir(self) -> Path:
        """One log file for each process of `conferral up`."""
        return self.data_dir / "logs"

    def read_master_key(self) -> bytes:
        """Return the 32 bytes that seal signing keys; refused outside hp and chain."""
        self._require_role(MASTER_KEY_ROLES, "CONFERRAL_MASTER_KEY_FILE")
        return key_files.read_or_create(self.master_key_file, inside=self.keys_dir)

    def read_secrets_key(self) -> bytes:
        """Return the 32 bytes that seal webhook secrets; refused in processes that do not need it."""
        self._require_role(SECRETS_KEY_ROLES, "CONFERRAL_SECRETS_KEY_FILE")
        return key_files.read_or_create(self.secrets_key_file, inside=self.keys_dir)

    def _require_role(self, allowed: frozenset[str], name: str) -> None:
        if self.role not in allowed:
            shown = ", ".join(sorted(allowed))
            raise SettingsError(
                [f"{name}: a process with the role {self.role} may not open it; only: {shown}"]
            )

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name, text in describe().items() if not text.secret)
        return f"Settings({', '.join(shown)})"


def describe() -> dict[str, Described]:
    """Return what is known about every setting, by field name, in order."""
    return {item.name: item.metadata["described"] for item in fields(Settings)}


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return f"CONFERRAL_{name.upper()}"
