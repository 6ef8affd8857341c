# SPDX-License-Identifier: Apache-2.0
"""What the effects of one credential cost by themselves, each as a ratio to rendering its PDF."""

from __future__ import annotations

from support.bench_effects import bare_effects
from support.bench_report import Report

SECTION = "The bare effects of one credential (CPU, no database, no Celery)"


def test_cpu_of_the_bare_effects(report: Report, *, full: bool) -> None:
    """Render, sign, attach, store, mail, webhook: one after the other, in a loop."""
    count = 200 if full else 40
    effects = bare_effects(count)
    render = effects.milliseconds["render"]
    for name, cost in effects.milliseconds.items():
        report.add(SECTION, name, f"{cost:.2f} ms", ratio=f"{cost / render:.2f} of render")
    report.add(
        SECTION, "all", f"{effects.total_ms:.2f} ms", ratio=f"{effects.total_ms / render:.2f} of render"
    )
