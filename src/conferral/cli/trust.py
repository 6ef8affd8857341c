# SPDX-License-Identifier: Apache-2.0
"""Whom this person trusts: DID documents and log keys from options and from the trust file.

The trust file is `~/.config/conferral/trust.json`: `{"issuers": [DID document, …], "logs": ["vkey", …]}`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from conferral.domain import canonical
from conferral.domain.checkpoint import CheckpointRefused, parse_vkey
from conferral.domain.did import MalformedKey
from conferral.domain.offline_check import Pins, pins_of
from conferral.domain.problems import Problem

MOST_BYTES = 1_000_000


def pins(did_files: tuple[Path, ...], vkey_files: tuple[Path, ...]) -> Pins:
    """Return everything that is pinned.

    Raises:
        Problem: `not_found` or `validation_failed` naming the file.
    """
    path = trust_file()
    trusted = _trusted(path) if path.is_file() else {}
    documents = [*_entries(path, trusted, "issuers"), *(_document(file) for file in did_files)]
    keys = [str(line) for line in _entries(path, trusted, "logs")]
    for file in vkey_files:
        keys += [line for line in _read(file).decode("utf-8", "replace").splitlines() if line.strip()]
    try:
        return pins_of(documents, [parse_vkey(key) for key in keys])
    except (MalformedKey, CheckpointRefused) as malformed:
        raise Problem("validation_failed", f"what is pinned cannot be read: {malformed}") from None


def trust_file() -> Path:
    """Return where the trust file is looked for."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "conferral" / "trust.json"


def _trusted(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Problem("validation_failed", f"{path} is not a JSON object")
    return found


def _entries(path: Path, trusted: dict[str, Any], name: str) -> list[Any]:
    found = trusted.get(name, [])
    kind = dict if name == "issuers" else str
    if not isinstance(found, list) or not all(isinstance(entry, kind) for entry in found):
        raise Problem("validation_failed", f"{path}: {name} is not a list of {kind.__name__}s")
    return found


def _document(file: Path) -> dict[str, Any]:
    try:
        return canonical.read_document(_read(file))
    except canonical.UnsafeDocument as unsafe:
        raise Problem("validation_failed", f"{file} is not a DID document: {unsafe.reason}") from None


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MOST_BYTES)
    except FileNotFoundError:
        raise Problem("not_found", f"there is no file {file}") from None
    except OSError as error:
        raise Problem("validation_failed", f"{file} cannot be read: {error.strerror}") from None
