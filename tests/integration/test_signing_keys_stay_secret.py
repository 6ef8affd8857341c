# SPDX-License-Identifier: Apache-2.0
"""Private keys are looked for wherever a running installation leaves bytes; and keys are changed in it."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conferral.adapters import sealing
from conferral.domain.did import base58btc
from conferral.settings import Settings
from support.installation import Installation, installed

DID = "did:web:creds.example.org:issuers:demo"
SECONDS = 60.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation under a real host name, with real processes."""
    folder = tmp_path_factory.mktemp("keys")
    with installed(folder, CONFERRAL_PUBLIC_URL="https://creds.example.org") as installation:
        yield installation


def asked(running: Installation, *words: str, code: int = 0) -> str:
    """Run a command beside it; return what it printed."""
    done = running.run(*words)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout


def rows(running: Installation, statement: str) -> list[Any]:
    """Read rows of the database, as another process may."""
    path = next(running.folder.glob("*.db"))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def private_keys(running: Installation) -> dict[str, bytes]:
    """Open every sealed key with the master key, as only this test may."""
    master_key = Settings.from_env(running.environ, role="hp").read_master_key()
    opened = {}
    for key_id, organisation_id, sealed in rows(
        running,
        "SELECT id, organisation_id, sealed_private FROM signing_keys WHERE sealed_private IS NOT NULL",
    ):
        parts = (b"signing-key", key_id.encode(), organisation_id.encode())
        place = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
        opened[key_id] = sealing.open_sealed(master_key, sealed, associated=place)
    return opened | {"master key": master_key}


def spellings(secret: bytes) -> list[bytes]:
    """Return how 32 secret bytes might be written down."""
    texts = [
        secret.hex(), secret.hex().upper(), base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="), base58btc(secret), repr(secret)[2:-1],
    ]  # fmt: skip
    return [secret, *(text.encode() for text in texts)]


def stores(running: Installation) -> Iterator[tuple[str, bytes]]:
    """Yield every place where bytes are left: files, Redis, environments and arguments of the processes."""
    secret_files = {Settings.from_env(running.environ, role="hp").master_key_file}
    for path in sorted(running.folder.rglob("*")):
        if path.is_file() and path not in secret_files:
            yield str(path.relative_to(running.folder)), path.read_bytes()
    with contextlib.closing(running.redis()) as redis:
        for key in redis.scan_iter():
            yield f"redis {key!r}", _value(redis, key)
    for pid in _family(running):
        for part in ("environ", "cmdline"):
            with contextlib.suppress(OSError):
                yield f"process {pid} {part}", Path(f"/proc/{pid}/{part}").read_bytes()


def _value(redis: Any, key: bytes) -> bytes:
    kind = redis.type(key)
    read = {
        b"string": redis.get, b"hash": redis.hgetall, b"set": redis.smembers,
        b"list": lambda name: redis.lrange(name, 0, -1),
        b"zset": lambda name: redis.zrange(name, 0, -1, withscores=True),
    }.get(kind, redis.dump)  # fmt: skip
    return key + repr(read(key)).encode()


def _family(running: Installation) -> list[int]:
    """Return the supervisor and everything below it."""
    assert running.process is not None
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                _, _, rest = (entry / "stat").read_text().rpartition(")")
                parents[int(entry.name)] = int(rest.split()[1])
    family = [running.process.pid]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def issue(running: Installation, name: str) -> str:
    """Issue a live credential; return its id."""
    said = asked(
        running, "issue", "--live", "--template", "diploma", "--name", name, "--email", f"{name}@example.com",
        "--field", "course=Statistics", "--wait", "--json",
    )  # fmt: skip
    found = json.loads(said.splitlines()[0])
    return str(found["credential_id"])


def test_no_private_key_is_found_anywhere_when_keys_were_made_rotated_and_withdrawn(
    running: Installation,
) -> None:
    """Files, logs, database, Redis, environments and arguments hold none; the search finds what is there."""
    first = issue(running, "ada")
    secrets = private_keys(running)
    assert asked(running, "signing-keys", "rotate").endswith(f"signs now: {DID}#k2\n")
    second = issue(running, "grace")
    secrets |= private_keys(running)
    withdrawn = ("signing-keys", "withdraw", "k2", "--compromised-at", "2026-01-01", "--yes")
    assert asked(running, *withdrawn).endswith(f"signs now: {DID}#k3\n")
    deadline = time.monotonic() + SECONDS
    revised = "SELECT id, revision FROM credentials WHERE state = 'issued' ORDER BY created_at, id"
    while dict(rows(running, revised)) != {first: 1, second: 2}:
        assert time.monotonic() < deadline, rows(running, revised)
        time.sleep(0.2)
    secrets |= private_keys(running)
    assert len(secrets) >= 4 + 1  # k1, k2, k3, the test mode's, the master key
    looked = list(stores(running))
    found = [
        (name, place)
        for name, secret in secrets.items()
        for place, content in looked
        if any(spelling in content for spelling in spellings(secret))
    ]
    assert found == []
    # The search finds what is there: the sealed bytes, and the public half.
    (sealed, public) = rows(
        running, "SELECT sealed_private, public_key FROM signing_keys WHERE retired_at IS NULL LIMIT 1"
    )[0]
    for known in (sealed, public):
        assert [place for place, content in looked if known in content and ".db" in place]


def test_the_command_tells_what_signs_when_keys_have_changed(running: Installation) -> None:
    """The list shows each key with its state; the archive holds document, keys and a proof a revision."""
    issue(running, "emmy")
    listed = [json.loads(line) for line in asked(running, "signing-keys", "list", "--json").splitlines()]
    states = {(key["mode"], key["number"]): key["state"] for key in listed}
    current = [number for (mode, number), state in states.items() if (mode, state) == ("live", "current")]
    assert len(current) == 1
    document = json.loads(asked(running, "signing-keys", "export"))
    methods = [
        f"{DID}#k{number}"
        for (mode, number), state in states.items()
        if mode == "live" and state != "withdrawn"
    ]
    assert document["assertionMethod"] == methods
    archive = running.folder.parent / "evidence.zip"
    asked(running, "signing-keys", "export", "--archive", str(archive))
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
    proven = rows(
        running,
        "SELECT l.credential_id, l.revision FROM leaves l JOIN credentials c ON c.id = l.credential_id "
        "WHERE c.mode = 'live' AND l.leaf_index IS NOT NULL",
    )
    assert {"did.json", "keys.json", "log.vkey", "checkpoint"} <= names
    assert {f"proofs/{one}.{revision}.tlog-proof" for one, revision in proven} <= names


def test_a_change_is_refused_with_its_code_when_it_cannot_be(running: Installation) -> None:
    """A key that is not there is 5, a date that is none 3, a wrong word 2."""
    issue(running, "sofya")
    since = ("--compromised-at", "2026-01-01", "--yes")
    asked(running, "signing-keys", "withdraw", "k99", *since, code=5)
    asked(running, "signing-keys", "withdraw", "k1", "--compromised-at", "soon", "--yes", code=3)
    asked(running, "signing-keys", "withdraw", "first", *since, code=2)
