# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conferral.domain import checkpoint, credential_checks, merkle, vc
from conferral.domain.canonical import UnsafeDocument
from conferral.domain.checkpoint import VerifierKey
from conferral.domain.verification import (
    EXIT_CODES,
    RESAVED_PDF,
    SENTENCES,
    Evidence,
    Finding,
    Standing,
    StatusFinding,
    Verdict,
    fails,
    holds,
    judge,
    no_credential,
    untold,
)
from support import sample_credentials
from support.sample_credentials import LIST_URL, credential, signed_list, web_issuer

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
SOUND = Evidence(
    now=NOW,
    signature=holds("did:web:creds.example.org:issuers:acme#k1"),
    is_known_issuer=True,
    issuer=holds("creds.example.org"),
    status=StatusFinding(Standing.IN_FORCE),
    is_recorded=True,
    valid_from=NOW - timedelta(days=1),
    valid_until=NOW + timedelta(days=1),
    anchor=holds("entry 812"),
)
IDS = ["signature", "issuer", "status", "validity", "anchor"]
PDF_IDS = ["signature", "pdf_digest", "issuer", "status", "validity", "anchor"]


def _judged(**changes: Any) -> Verdict:
    return judge(dataclasses.replace(SOUND, **changes)).verdict


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Verdict.VALID),
        ({"anchor": untold("pending")}, Verdict.VALID),
        ({"is_recorded": None}, Verdict.VALID),
        ({"valid_until": None}, Verdict.VALID),
        ({"pdf_digest": holds()}, Verdict.VALID),
        ({"is_known_issuer": False}, Verdict.UNKNOWN),
        ({"is_known_issuer": False, "signature": fails()}, Verdict.UNKNOWN),
        ({"is_recorded": False}, Verdict.UNKNOWN),
        ({"issuer": fails()}, Verdict.UNKNOWN),
        ({"signature": fails()}, Verdict.TAMPERED),
        ({"pdf_digest": fails()}, Verdict.TAMPERED),
        ({"anchor": fails()}, Verdict.TAMPERED),
        ({"signature": untold()}, Verdict.CANNOT_CHECK),
        ({"status": StatusFinding(Standing.REVOKED)}, Verdict.REVOKED),
        ({"status": StatusFinding(Standing.WITHDRAWN)}, Verdict.REVOKED),
        ({"status": StatusFinding(Standing.REPLACED)}, Verdict.REPLACED),
        ({"status": StatusFinding(Standing.REPLACED), "issuer": fails()}, Verdict.REPLACED),
        ({"status": StatusFinding(Standing.SUSPENDED)}, Verdict.SUSPENDED),
        ({"valid_until": NOW - timedelta(seconds=1)}, Verdict.EXPIRED),
        ({"valid_from": NOW + timedelta(seconds=1)}, Verdict.NOT_YET_VALID),
        ({"issuer": untold()}, Verdict.CANNOT_CHECK),
        ({"status": StatusFinding(Standing.UNTOLD)}, Verdict.CANNOT_CHECK),
        ({"pdf_digest": untold()}, Verdict.CANNOT_CHECK),
    ],
)
def test_the_verdict_is_the_first_rule_that_applies(changes: dict[str, Any], expected: Verdict) -> None:
    """Each row of the table, alone."""
    assert _judged(**changes) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"is_known_issuer": False, "status": StatusFinding(Standing.REVOKED)}, Verdict.UNKNOWN),
        ({"is_recorded": False, "pdf_digest": fails()}, Verdict.UNKNOWN),
        ({"pdf_digest": fails(), "status": StatusFinding(Standing.REVOKED)}, Verdict.TAMPERED),
        ({"signature": untold(), "status": StatusFinding(Standing.REVOKED)}, Verdict.CANNOT_CHECK),
        (
            {"status": StatusFinding(Standing.REVOKED), "valid_until": NOW - timedelta(days=9)},
            Verdict.REVOKED,
        ),
        ({"valid_until": NOW - timedelta(days=9), "issuer": untold()}, Verdict.EXPIRED),
        ({"status": StatusFinding(Standing.REVOKED), "issuer": untold()}, Verdict.REVOKED),
    ],
)
def test_the_order_of_the_rules_is_the_documented_one(changes: dict[str, Any], expected: Verdict) -> None:
    """Where two rules apply, the earlier one decides."""
    assert _judged(**changes) is expected


def test_valid_needs_every_check_over_all_combinations() -> None:
    """Of all combinations only those without false or null are VALID; the anchor may be pending."""
    answers = (holds(), fails(), untold())
    standings = [StatusFinding(standing) for standing in Standing]
    for signature, issuer, anchor, pdf in itertools.product(answers, answers, answers, (None, *answers)):
        for status, known, recorded in itertools.product(standings, (True, False), (True, False, None)):
            verdict = _judged(
                signature=signature,
                issuer=issuer,
                anchor=anchor,
                pdf_digest=pdf,
                status=status,
                is_known_issuer=known,
                is_recorded=recorded,
            )
            is_sound = (
                signature.ok
                and issuer.ok
                and anchor.ok is not False
                and (pdf is None or pdf.ok is True)
                and status.standing is Standing.IN_FORCE
                and known
                and recorded is not False
            )
            assert (verdict is Verdict.VALID) == bool(is_sound)


def test_checks_stand_in_their_order() -> None:
    """The page, the API and the command line list the same checks."""
    assert [check.id for check in judge(SOUND).checks] == IDS
    with_pdf = judge(dataclasses.replace(SOUND, pdf_digest=holds()))
    assert [check.id for check in with_pdf.checks] == PDF_IDS


@pytest.mark.parametrize("signature", [fails("no"), untold("no key")])
def test_without_a_true_signature_nothing_else_is_shown(signature: Finding) -> None:
    """What an unsigned document says about itself is nobody's word."""
    judgement = judge(dataclasses.replace(SOUND, signature=signature, pdf_digest=fails()))
    assert [check.id for check in judgement.checks] == ["signature"]


def test_a_signature_that_we_never_logged_raises_the_alarm() -> None:
    """A stolen key looks like this."""
    assert judge(dataclasses.replace(SOUND, is_recorded=False)).is_unlogged_signature
    assert not judge(SOUND).is_unlogged_signature
    assert not judge(dataclasses.replace(SOUND, is_recorded=False, signature=fails())).is_unlogged_signature


def test_the_wire_form_is_the_documented_one() -> None:
    """`{verdict, checks: [{id, ok, detail}], checked_at}`, serialisable as it is."""
    wire = judge(SOUND).as_wire()
    assert json.loads(json.dumps(wire)) == wire
    assert wire["verdict"] == "VALID"
    assert wire["checked_at"] == "2026-06-01T12:00:00Z"
    assert wire["checks"][0] == {"id": "signature", "ok": True, "detail": SOUND.signature.detail}


def test_every_verdict_has_a_sentence_and_an_exit_code() -> None:
    """No verdict is left without words; only VALID ends with 0."""
    assert set(SENTENCES) == set(EXIT_CODES) == set(Verdict)
    assert [verdict for verdict, code in EXIT_CODES.items() if code == 0] == [Verdict.VALID]
    revoked = judge(
        dataclasses.replace(
            SOUND, status=StatusFinding(Standing.REVOKED, since=datetime(2026, 5, 3, tzinfo=UTC))
        )
    )
    assert revoked.sentence == "Genuine, but withdrawn by the issuer on 3 May 2026."
    assert revoked.exit_code == 10
    assert judge(dataclasses.replace(SOUND, pdf_digest=fails())).sentence == RESAVED_PDF
    assert judge(dataclasses.replace(SOUND, signature=fails())).sentence == SENTENCES[Verdict.TAMPERED]
    assert no_credential(NOW).verdict is Verdict.UNKNOWN


ISSUER = web_issuer()
SIGNED = credential(ISSUER)


def _status(signed: dict[str, Any], listed: dict[str, Any], **changes: Any) -> StatusFinding:
    arguments: dict[str, Any] = {"keys": ISSUER.keys, "now": datetime.now(UTC), **changes}
    return credential_checks.check_status_list(signed, listed, arguments["keys"], arguments["now"])


@pytest.mark.parametrize(
    ("purpose", "expected"), [("revocation", Standing.REVOKED), ("suspension", Standing.SUSPENDED)]
)
def test_a_set_bit_is_read_by_its_purpose(purpose: str, expected: Standing) -> None:
    """Revoked or suspended, as the template chose."""
    signed = credential(ISSUER, status_purpose=purpose)
    assert _status(signed, signed_list(ISSUER, [4711], purpose=purpose)).standing is expected
    others = signed_list(ISSUER, [4710, 4712], purpose=purpose)
    assert _status(signed, others).standing is Standing.IN_FORCE


@pytest.mark.parametrize(
    ("listed", "changes"),
    [
        (signed_list(web_issuer("stranger"), []), {}),
        (signed_list(dataclasses.replace(ISSUER, signer=web_issuer().signer)), {}),
        (signed_list(ISSUER, purpose="suspension"), {}),
        (signed_list(ISSUER, id="https://creds.example.org/status/8"), {}),
        (signed_list(ISSUER, issuer="did:web:creds.example.org:issuers:other"), {}),
        (signed_list(ISSUER), {"now": datetime.now(UTC) + timedelta(days=8)}),
        (signed_list(ISSUER), {"now": datetime.now(UTC) - timedelta(days=1)}),
        (signed_list(ISSUER), {"keys": {}}),
        (signed_list(ISSUER, type=["VerifiableCredential"]), {}),
        ({**signed_list(ISSUER), "validUntil": "2199-01-01T00:00:00Z"}, {}),
        (SIGNED, {}),
        ({}, {}),
    ],
    ids=[
        "signed by a stranger",
        "signed by another key",
        "another purpose",
        "another list",
        "another issuer",
        "expired",
        "not yet valid",
        "key not pinned",
        "another type",
        "tampered",
        "no list",
        "empty",
    ],
)
def test_a_doubtful_list_says_nothing(listed: dict[str, Any], changes: dict[str, Any]) -> None:
    """A list that is not the issuer's, not in date or not this one is never read as a clear bit."""
    finding = _status(SIGNED, listed, **changes)
    assert finding.standing is Standing.UNTOLD
    assert finding.detail


def test_a_list_of_another_issuer_that_is_known_too_says_nothing() -> None:
    """An organisation cannot clear the bits of another one of the same deployment."""
    neighbour = web_issuer("neighbour")
    both = {**ISSUER.keys, **neighbour.keys}
    finding = _status(SIGNED, signed_list(neighbour), keys=both)
    assert finding.standing is Standing.UNTOLD
    assert _status(SIGNED, signed_list(ISSUER), keys=both).standing is Standing.IN_FORCE


def test_an_index_beyond_the_list_says_nothing() -> None:
    """The index must lie inside the list that is there."""
    document = vc.build(sample_credentials.content(ISSUER))
    document["credentialStatus"]["statusListIndex"] = "131072"
    assert _status(ISSUER.sign(document), signed_list(ISSUER)).standing is Standing.UNTOLD


def test_a_credential_without_status_is_in_force() -> None:
    """An issuer may keep no list; the removal of an entry breaks the signature instead."""
    assert _status({}, {}).standing is Standing.IN_FORCE
    removed = {key: value for key, value in SIGNED.items() if key != "credentialStatus"}
    assert credential_checks.check_signature(removed, ISSUER.keys).ok is False


def test_a_signature_is_true_false_or_untold() -> None:
    """The key comes from the caller: a key it does not hold is untold, a broken proof false."""
    assert credential_checks.check_signature(SIGNED, ISSUER.keys).ok is True
    assert credential_checks.check_signature(SIGNED, {}).ok is None
    assert credential_checks.check_signature({**SIGNED, "name": "x"}, ISSUER.keys).ok is False
    assert credential_checks.check_signature({}, ISSUER.keys).ok is False
    stored = vc.stored_form(SIGNED)
    assert credential_checks.check_stored_bytes(stored, ISSUER.keys).ok is True
    assert credential_checks.check_stored_bytes(stored[:-1], ISSUER.keys).ok is False


def test_the_issuer_answers_only_for_its_own_keys() -> None:
    """The method belongs to the issuer's DID and is still allowed."""
    assert credential_checks.check_issuer(SIGNED, [ISSUER.method]).ok is True
    assert credential_checks.check_issuer(SIGNED, [ISSUER.method]).detail == "creds.example.org"
    assert credential_checks.check_issuer(SIGNED, []).ok is False
    stranger = sample_credentials.key_issuer()
    forged = vc.sign(
        {key: value for key, value in SIGNED.items() if key != "proof"},
        sign=stranger.signer.sign,
        verification_method=stranger.method,
        created=NOW,
    )
    assert credential_checks.check_signature(forged, credential_checks.did_key_keys(forged)).ok is True
    assert credential_checks.check_issuer(forged, [stranger.method]).ok is False


def test_dates_are_read_or_refused() -> None:
    """An unreadable date never passes for "does not end"."""
    begins, ends = credential_checks.validity_of(SIGNED)
    assert begins == datetime(2026, 1, 1, tzinfo=UTC)
    assert ends == datetime(2099, 1, 1, 23, 59, 59, tzinfo=UTC)
    assert credential_checks.validity_of({}) == (None, None)
    for broken in ("soon", ["2026-01-01T00:00:00Z"], 7, ""):
        with pytest.raises(UnsafeDocument):
            credential_checks.validity_of({"validUntil": broken})


def test_the_anchor_is_checked_under_a_pinned_log_key() -> None:
    """True for the stored bytes, false for others, untold without a pinned key."""
    stored = vc.stored_form(SIGNED)
    grown = merkle.append(lambda *_: b"", 0, [credential_checks.log_entry(stored), bytes(32)])
    tiles = {(tile.level, tile.number): tile.data for tile in grown.tiles}
    key = VerifierKey("creds.example.org/log", ISSUER.signer.public_key)
    note = checkpoint.sign_checkpoint(
        key.name, grown.size, grown.root, ISSUER.signer.sign, public_key=key.public_key
    )
    proof = merkle.inclusion_proof(0, grown.size, lambda level, number, _width: tiles[level, number])
    text = checkpoint.tlog_proof(0, proof, note)
    assert credential_checks.check_anchor(stored, text, [key]).ok is True
    assert credential_checks.check_anchor(stored + b" ", text, [key]).ok is False
    assert credential_checks.check_anchor(stored, text, []).ok is None
    assert LIST_URL in stored.decode()
