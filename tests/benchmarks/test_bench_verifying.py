# SPDX-License-Identifier: Apache-2.0
"""What one verification costs: offline by our own code, by the single file, and with its children."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conferral.adapters import brought_file, document_checker
from conferral.domain import canonical, merkle, offline_check, vc
from conferral.domain.checkpoint import VerifierKey, sign_checkpoint, tlog_proof
from conferral.domain.offline_check import Brought
from conferral.domain.pdf_attachment import attach
from conferral.domain.pdf_binding import check_pdf
from conferral.domain.verification import Verdict
from conferral.standalone import verify
from conferral.standalone.log_and_list import read_vkey
from conferral.standalone.signatures import keys_of_did_document
from support import sample_credentials
from support.bench_report import Report
from support.product import product_on

SECTION = "Verifying one credential"
BOUND_MS = 50.0


def milliseconds(
    count: int, work: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Return median and 99th percentile; a clock of the processor knows nothing of busy neighbours."""
    work()
    times = []
    for _ in range(count):
        began = clock()
        work()
        times.append((clock() - began) * 1000)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the pages of a certificate as they are made."""
    folder: Path = tmp_path_factory.mktemp("base")
    with product_on("sqlite", folder) as product:
        accepted = product.request()
        product.run()
        row = product.credential(accepted.credential_id)
        return product.rt.blobs.get(row.pdf_sha256)[: row.base_length]


def test_offline_verification(report: Report, base: bytes, *, full: bool) -> None:
    """Signature, PDF, status list and log proof, from bytes to verdict, with pinned keys."""
    issuer = sample_credentials.web_issuer()
    signed = sample_credentials.credential(issuer, pdf_sha384=hashlib.sha384(base).digest())
    stored = vc.stored_form(signed)
    pdf = attach(base, stored, sample_credentials.CREATED)
    leaf, other = merkle.leaf_hash(hashlib.sha256(stored).digest()), merkle.leaf_hash(bytes(32))
    note = sign_checkpoint(
        "log.example/log", 2, merkle.node_hash(other, leaf), issuer.signer.sign,
        public_key=issuer.signer.public_key,
    )  # fmt: skip
    proof = tlog_proof(1, [other], note)
    listed = vc.stored_form(sample_credentials.signed_list(issuer, range(0, 13_000, 10)))
    key = VerifierKey("log.example/log", issuer.signer.public_key)
    pins = offline_check.pins_of([issuer.document], [key])
    now = datetime.now(UTC)

    def ours() -> None:
        digest = check_pdf(pdf, stored, canonical.read_document(stored))
        judgement = offline_check.judge(Brought(stored, digest, listed, proof), pins, now)
        assert judgement.verdict is Verdict.VALID

    members = {
        "credential.json": stored, "certificate.pdf": pdf, "status.json": listed,
        "credential.tlog-proof": proof.encode(),
    }  # fmt: skip
    trusted = {issuer.did: keys_of_did_document(issuer.document)}

    def single_file() -> None:
        assert verify.judge(members, trusted, [read_vkey(str(key))], now)[0] == "VALID"

    count = 1_000 if full else 200
    bound = f"p99 at most {BOUND_MS:.0f} ms"
    clocks = {"offline, from bytes to verdict": time.perf_counter, "of it CPU": time.process_time}
    for what, clock in clocks.items():
        middle, slow = milliseconds(count, ours, clock)
        report.add(SECTION, what, f"p50 {middle:.1f} ms, p99 {slow:.1f} ms", bound=bound)
    alone, alone_slow = milliseconds(count, single_file, time.process_time)
    report.add(
        SECTION, "the same by the single file (CPU)", f"p50 {alone:.1f} ms, p99 {alone_slow:.1f} ms",
        ratio=f"{middle / alone:.1f}x as fast",
    )  # fmt: skip
    few = 10 if full else 3
    child, child_slow = milliseconds(few, lambda: document_checker.check_signature(stored, issuer.keys))
    report.add(SECTION, "a stranger's JSON in its child", f"p50 {child:.0f} ms, worst {child_slow:.0f} ms")
    reader, reader_slow = milliseconds(few, lambda: brought_file.read(pdf))
    report.add(SECTION, "reading a PDF in its child", f"p50 {reader:.0f} ms, worst {reader_slow:.0f} ms")
