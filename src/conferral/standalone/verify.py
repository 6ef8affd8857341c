# SPDX-License-Identifier: Apache-2.0
"""Verify a certificate without its issuer: `python verify.py FILE`, with Python and `cryptography` alone.

FILE is a certificate (PDF), a credential (JSON), a proof bundle (zip) or its folder. Nothing is fetched. Keys
that lie in a bundle prove only themselves: name whom you trust with --did and --vkey.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conferral.standalone.certificate import check_pdf, credential_in
from conferral.standalone.log_and_list import check_log, check_status, read_vkey
from conferral.standalone.signatures import (
    check_proof,
    key_of_did_key,
    keys_of_did_document,
    stored_form,
)
from conferral.standalone.statements import Unsound, is_form_of_ours, read_json

MOST_FILE = 20_000_000
MEMBERS = {
    "credential.json": 256 * 1024,
    "certificate.pdf": 10_000_000,
    "status.json": 256 * 1024,
    "credential.tlog-proof": 64 * 1024,
}
EXIT_CODES = {
    "VALID": 0,
    "REVOKED": 10,
    "EXPIRED": 11,
    "TAMPERED": 12,
    "UNKNOWN": 13,
    "CANNOT_CHECK": 14,
    "SUSPENDED": 16,
    "NOT_YET_VALID": 16,
}
SENTENCES = {
    "VALID": "This certificate is genuine and in force.",
    "REVOKED": "Genuine, but withdrawn by the issuer.",
    "EXPIRED": "Genuine, but it has ended.",
    "SUSPENDED": "Genuine, but paused by the issuer.",
    "NOT_YET_VALID": "Genuine, but not valid yet.",
    "TAMPERED": "This file is not what was issued: its name or content differs.",
    "UNKNOWN": "There is no credential in it. That does not say it is false.",
    "CANNOT_CHECK": "Something that is needed is not at hand; see the checks.",
}
Check = tuple[bool | None, str]


def judge(
    members: dict[str, bytes],
    trusted: dict[str, dict[str, bytes]],
    vkeys: list[tuple[str, bytes, bytes]],
    now: datetime,
) -> tuple[str, dict[str, Check]]:
    """Return the verdict and the checks in their order, by pinned keys and by what lies in a bundle.

    Args:
        members: what was brought, by its name in a bundle.
        trusted: for each DID that is pinned, its keys.
        vkeys: the logs that are pinned.
        now: when is judged.
    """
    document = _document(members)
    if document is None:
        return "UNKNOWN", {}
    issuer = document.get("issuer")
    did = str(issuer.get("id", "") if isinstance(issuer, dict) else issuer)
    keys = trusted[did] if did in trusted else _own_key(document, did)
    checks = {"signature": _signature(document, keys)}
    period, ended, early = _validity(document, now)
    if checks["signature"][0] and period[0] is None:
        checks["signature"] = (False, period[1])
    if checks["signature"][0] is not True:
        return ("TAMPERED" if checks["signature"][0] is False else "CANNOT_CHECK"), checks
    if "certificate.pdf" in members:
        checks["pdf_digest"] = check_pdf(members["certificate.pdf"], members["credential.json"], document)
    checks["issuer"] = _issuer_check(document, did, trusted)
    standing, why = _standing(document, members, keys, now)
    checks["status"] = ({"in_force": True, "untold": None}.get(standing, False), why)
    checks["validity"] = period
    checks["anchor"] = _anchor(document, members, vkeys)
    return _verdict(checks, standing, ended=ended, early=early), checks


def main(words: list[str] | None = None) -> int:
    """Read the command line, print verdict and checks, return the exit code."""
    parser = argparse.ArgumentParser(description="Verify a certificate without its issuer's server.")
    parser.add_argument("file", help="certificate.pdf, credential.json, proof.zip or its folder")
    parser.add_argument("--did", action="append", default=[], help="trust the issuer of this did.json")
    parser.add_argument("--vkey", action="append", default=[], help="trust the log of this log.vkey")
    parser.add_argument("--as-of", help="judge at this time, e.g. 2026-12-31T12:00:00Z")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(words)
    try:
        now = datetime.fromisoformat(options.as_of) if options.as_of else datetime.now(UTC)
        now = now if now.tzinfo else now.replace(tzinfo=UTC)
        documents = [read_json(Path(name).read_bytes()) for name in options.did]
        trusted = {str(one.get("id", "")): keys_of_did_document(one) for one in documents}
        lines = [line for name in options.vkey for line in Path(name).read_text("utf-8").splitlines()]
        vkeys = [read_vkey(line) for line in lines if line.strip()]
        members = read_members(Path(options.file))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        sys.stderr.write(f"verify: {error}\n")
        return 2
    verdict, checks = judge(members, trusted, vkeys, now)
    _show(verdict, checks, is_json=options.json)
    return EXIT_CODES[verdict]


def read_members(path: Path) -> dict[str, bytes]:
    """Read what was brought: a bundle, its folder, a certificate, or a credential."""
    if path.is_dir():
        return {
            name: _bounded(path / name, most) for name, most in MEMBERS.items() if (path / name).is_file()
        }
    content = _bounded(path, MOST_FILE)
    if content.startswith(b"PK\x03\x04"):
        members = {}
        with zipfile.ZipFile(path) as archive:
            for name in set(archive.namelist()) & MEMBERS.keys():
                with archive.open(name) as member:
                    members[name] = member.read(MEMBERS[name] + 1)
                if len(members[name]) > MEMBERS[name]:
                    raise Unsound(f"{name} in the bundle is too large")
        return members
    if b"%PDF-" not in content[:1024]:
        return {"credential.json": content}
    credential = credential_in(content)
    found = {} if credential is None else {"credential.json": credential}
    return {"certificate.pdf": content, **found}


def _bounded(path: Path, most: int) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise Unsound(f"{path.name} has more than {most:,} bytes")
    return content


def _document(members: dict[str, bytes]) -> dict[str, Any] | None:
    """Return the signed document that was brought; None when there is none."""
    try:
        document = read_json(members["credential.json"])
        stored_form(document)
    except (KeyError, Unsound):
        return None
    return document if "proof" in document else None


def _anchor(
    document: dict[str, Any], members: dict[str, bytes], vkeys: list[tuple[str, bytes, bytes]]
) -> Check:
    if "credential.tlog-proof" not in members:
        return None, "no log evidence was given"
    entry = hashlib.sha256(stored_form(document)).digest()
    return check_log(members["credential.tlog-proof"].decode("utf-8", "replace"), entry, vkeys)


def _own_key(document: dict[str, Any], did: str) -> dict[str, bytes]:
    """Return the key that a did:key issuer is."""
    proof = document.get("proof")
    method = proof.get("verificationMethod") if isinstance(proof, dict) else None
    return key_of_did_key(method) if isinstance(method, str) and method.partition("#")[0] == did else {}


def _signature(document: dict[str, Any], keys: dict[str, bytes]) -> Check:
    if not is_form_of_ours(document):
        return None, "the document is not in the form that this program reads; try another verifier"
    return check_proof(document, keys)


def _issuer_check(document: dict[str, Any], did: str, trusted: dict[str, dict[str, bytes]]) -> Check:
    if did not in trusted:
        return None, f"{did[:200]} is not pinned: trust it with --did FILE"
    method = str(document["proof"]["verificationMethod"])
    if method.partition("#")[0] != did:
        return False, "the key belongs to somebody else than the issuer"
    return True, did


def _standing(
    document: dict[str, Any], members: dict[str, bytes], keys: dict[str, bytes], now: datetime
) -> tuple[str, str]:
    if "credentialStatus" not in document:
        return "in_force", "the issuer keeps no status"
    if "status.json" not in members:
        return "untold", "no status list is at hand"
    try:
        return check_status(document, read_json(members["status.json"]), keys, now)
    except Unsound as unsound:
        return "untold", str(unsound)


def _validity(document: dict[str, Any], now: datetime) -> tuple[Check, bool, bool]:
    """Return the check, whether it has ended, and whether it has not begun."""
    moments = []
    for name in ("validFrom", "validUntil"):
        try:
            moment = datetime.fromisoformat(document[name]) if name in document else None
        except (TypeError, ValueError):
            return (None, "a date of the document cannot be read"), False, False
        moments.append(moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None)
    begins, ends = moments
    if begins is not None and now < begins:
        return (False, f"valid from {document['validFrom']}"), False, True
    if ends is not None and now > ends:
        return (False, f"ended {document['validUntil']}"), True, False
    return (True, f"until {document['validUntil']}" if ends else "does not end"), False, False


def _verdict(checks: dict[str, Check], standing: str, *, ended: bool, early: bool) -> str:
    """Decide by the first rule that applies; nothing is valid because something was silent."""
    unknown = any(checks[name][0] is None for name in checks if name != "anchor")
    rules = (
        (checks.get("pdf_digest", (None, ""))[0] is False, "TAMPERED"),
        (standing in ("revoked", "suspended"), standing.upper()),
        (ended, "EXPIRED"),
        (early, "NOT_YET_VALID"),
        (unknown, "CANNOT_CHECK"),
        (checks["anchor"][0] is False, "TAMPERED"),
        (checks["issuer"][0] is not True, "UNKNOWN"),
    )
    return next((verdict for applies, verdict in rules if applies), "VALID")


def _show(verdict: str, checks: dict[str, Check], *, is_json: bool) -> None:
    if is_json:
        listed = [{"id": name, "ok": ok, "detail": detail} for name, (ok, detail) in checks.items()]
        record = {"verdict": verdict, "checks": listed, "exit_code": EXIT_CODES[verdict]}
        sys.stdout.write(json.dumps(record) + "\n")
        return
    sys.stdout.write(f"{verdict.replace('_', ' ')}  {SENTENCES[verdict]}\n")
    for name, (ok, detail) in checks.items():
        sign = {True: "yes", False: "NO", None: "?"}[ok]
        sys.stdout.write(f"  {sign:<4}{name:<12}{detail.partition('#')[0]}\n")


if __name__ == "__main__":
    raise SystemExit(main())
