# SPDX-License-Identifier: Apache-2.0
"""`conferral verify`: one verdict in words, then the checks; the exit code says it to scripts.

What this installation issued is judged by its own records. Anything else, and everything with `--offline`,
is judged by pinned keys and by what lies beside it; what cannot be told is never called valid.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import urllib3

from conferral.adapters import brought_file
from conferral.adapters.brought_file import Material
from conferral.cli import installation, showing, trust
from conferral.domain import canonical, claims, offline_check, verification
from conferral.domain.ids import is_id
from conferral.domain.offline_check import Brought, Pins
from conferral.domain.problems import Problem
from conferral.domain.row_finding import quoted
from conferral.domain.tokens import is_public_token
from conferral.domain.verification import Judgement, Verdict
from conferral.services import verifying, verifying_uploads
from conferral.services.runtime import Runtime
from conferral.settings import Settings
from conferral.store.queries import credentials

MOST_BYTES = 20_000_000  # a bundle; PDF and JSON have smaller bounds of their own
DOWNLOAD_SECONDS = 15.0
REDIRECTS = 3
_PAGE = "/c/"
_SIGNS = {True: ("✓", showing.GREEN), False: ("✗", showing.RED), None: ("?", showing.YELLOW)}
_WORDS = {
    "signature": ("Signature", "Signature is wrong", "Signature"),
    "pdf_digest": ("Content unchanged", "Content differs", "Content"),
    "issuer": ("Issuer", "Issuer is not who it says", "Issuer not known here"),
    "status": ("Not withdrawn", "Not in force", "Status not known"),
    "validity": ("In its period", "Not in its period", "Period"),
    "anchor": ("Logged", "Log proof is wrong", "Log not checked"),
}
_GREEN = (Verdict.VALID,)
_RED = (Verdict.TAMPERED, Verdict.REVOKED)


@click.command()
@click.argument("what", metavar="FILE|URL|ID|TOKEN")
@click.option("--offline", is_flag=True, help="Use no network and no database: pinned keys and files only.")
@click.option(
    "--did", "did_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Trust the issuer of this DID document; repeat it.",
)  # fmt: skip
@click.option(
    "--vkey", "vkey_files", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Trust the log with the verifier key in this file; repeat it.",
)  # fmt: skip
@click.option("--as-of", metavar="TIME", help="Judge at this time, e.g. 2026-12-31 or 2026-12-31T12:00:00Z.")
@installation.with_json
def verify(
    *, what: str, offline: bool, did_files: tuple[Path, ...], vkey_files: tuple[Path, ...],
    as_of: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Check a credential: a PDF, its JSON, a proof.zip, an address, an id or a token."""
    moment = _moment(as_of)
    pins = trust.pins(did_files, vkey_files)
    judged = (
        _judge_foreign(brought_file.read(_file(what)), pins, moment)
        if offline
        else _online(what, pins, moment)
    )
    _show(*judged, as_of=moment, as_json=as_json)
    return judged[0].exit_code


_Judged = tuple[Judgement, str]


def _online(what: str, pins: Pins, moment: datetime | None) -> _Judged:
    with _installed() as rt:
        token = _token(rt, what)
        if token is not None:
            return _by_token(rt, token, moment)
        material = brought_file.read(_download(what) if _is_address(what) else _file(what))
        verified = verifying_uploads.judged(rt, material, as_of=moment) if rt is not None else None
    if verified is not None:
        return verified.judgement, _claims(material.brought, verified.judgement)
    return _judge_foreign(material, pins, moment)


def _judge_foreign(material: Material, pins: Pins, moment: datetime | None) -> _Judged:
    now = moment or datetime.now(UTC)
    if material.brought is None:
        return verification.no_credential(now), material.remark or "There is no credential in it."
    judgement = offline_check.judge(material.brought, pins, now)
    return judgement, _claims(material.brought, judgement)


def _claims(brought: Brought | None, judgement: Judgement) -> str:
    """Return what the credential says, once its signature is true: until then it is nobody's word."""
    if brought is None or not judgement.checks or not judgement.checks[0].ok:
        return ""
    document = canonical.read_document(brought.credential)
    return " · ".join(quoted(name) for name in claims.names_in(document))


def _by_token(rt: Runtime | None, token: str, moment: datetime | None) -> _Judged:
    found = verifying.by_token(rt, token, as_of=moment) if rt is not None else None
    if found is None:
        return verification.no_credential(moment or datetime.now(UTC)), ""
    mode = " · test mode" if found.is_test else ""
    names = (found.recipient_name, found.title, found.issuer_name)
    return found.judgement, " · ".join(quoted(name) for name in names) + mode


def _token(rt: Runtime | None, what: str) -> str | None:
    """Return the public token that is meant, or None when a file or a foreign address is."""
    if is_public_token(what) and not Path(what).exists():
        return what
    if is_id(what, "cred"):
        if rt is None:
            raise Problem("not_found", "there is no installation here that could know an id")
        with rt.database.snapshot() as session:
            row = credentials.work(session, what)
        # No token is no credential: the answer is the same for unknown and for not issued yet.
        return str(row.token) if row is not None else "-"
    token = _token_in(what) if _is_address(what) else None
    if rt is None or token is None:
        return None
    # By the token alone: one installation may be reached under several addresses.
    with rt.database.snapshot() as session:
        return token if credentials.by_token(session, token) is not None else None


def _token_in(address: str) -> str | None:
    """Return the token of a verification page's address."""
    page, _, rest = urlsplit(address).path.partition(_PAGE)
    token = rest.partition("/")[0]
    return token if not page and is_public_token(token) else None


@contextlib.contextmanager
def _installed() -> Iterator[Runtime | None]:
    """Yield this host's installation if there is one; verifying must not make one."""
    settings = Settings.from_env(os.environ, role="cli")
    if not settings.data_dir.is_dir():
        yield None
        return
    with installation.opened(settings) as rt:
        yield rt


def _file(what: str) -> bytes:
    try:
        with Path(what).open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise Problem("not_found", f"there is no file {what[:200]}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise Problem("validation_failed", f"{what[:200]} cannot be read: {reason}") from None
    return _bounded(content)


def _is_address(what: str) -> bool:
    return urlsplit(what).scheme in {"http", "https"}


def _download(address: str) -> bytes:
    if (token := _token_in(address)) is not None:
        # The page says what its issuer says; what can be judged here is the credential itself.
        address = urlsplit(address)._replace(path=f"{_PAGE}{token}/credential.json", query="").geturl()
    retries = urllib3.Retry(total=REDIRECTS, connect=0, read=0, redirect=REDIRECTS)
    try:
        with urllib3.PoolManager(timeout=DOWNLOAD_SECONDS) as pool:
            answer = pool.request(
                "GET", address, retries=retries, preload_content=False,
                headers={"Accept": "application/vc, application/pdf, application/zip, application/json"},
            )  # fmt: skip
            content = answer.read(MOST_BYTES + 1)
    except (urllib3.exceptions.HTTPError, ValueError):
        raise Problem("temporary_reduced_capacity", f"{address[:200]} does not answer") from None
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise Problem("not_found", f"{address[:200]} answers {answer.status}")
    return _bounded(content)


def _bounded(content: bytes) -> bytes:
    if len(content) > MOST_BYTES:
        raise Problem("body_too_large", f"it has more than {MOST_BYTES // 1_000_000} MB")
    return content


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("write 2026-12-31 or 2026-12-31T12:00:00Z", param_hint="--as-of") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _show(judgement: Judgement, remark: str, *, as_of: datetime | None, as_json: bool) -> None:
    if as_json:
        record: dict[str, Any] = {
            **judgement.as_wire(),
            "sentence": judgement.sentence,
            "remark": remark or None,
            "as_of": as_of,
            "exit_code": judgement.exit_code,
        }
        showing.emit(record)
        return
    verdict = judgement.verdict
    colour = showing.GREEN if verdict in _GREEN else showing.RED if verdict in _RED else showing.YELLOW
    showing.say(f"{showing.painted(verdict.value.replace('_', ' '), colour)}  {judgement.sentence}")
    if remark:
        showing.say(f"  {remark}")
    for check in judgement.checks:
        sign, paint = _SIGNS[check.ok]
        word = _WORDS[check.id][0 if check.ok else 1 if check.ok is False else 2]
        showing.say(f"  {showing.painted(sign, paint)} {word:<26} {_short(check.detail)}".rstrip())
    if as_of is not None:
        showing.say(f"  Judged as of {as_of:%Y-%m-%d %H:%M:%S %Z}.")
    if judgement.is_unlogged_signature:
        showing.remark(
            "conferral: ALERT: a true signature of ours without a record; a stolen key looks like this"
        )


def _short(detail: str) -> str:
    """Leave out the fragment of a did:key, which repeats all of it."""
    return detail.partition("#")[0] if detail.startswith("did:key:") else detail
