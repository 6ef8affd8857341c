# SPDX-License-Identifier: Apache-2.0
"""The bars of a batch, computed from its counts."""

from __future__ import annotations

from typing import Any

from conferral.cli.progress import Step, is_final, steps_of


def progress(
    credentials: dict[str, int], tasks: dict[str, dict[str, int]], total: int = 10
) -> dict[str, Any]:
    """Return counts as `batching.progress` does."""
    return {"credentials": credentials, "tasks": tasks, "total": total}


def test_bars_count_what_is_done_tried_again_and_failed() -> None:
    """⟳ and ✗ stand beside the count, and vanish at zero."""
    counts = progress(
        {"issued": 6, "issuing": 1, "queued": 2, "failed": 1},
        {
            "issue_credential": {"SUCCESS": 6, "STARTED": 2, "RETRY": 1, "FAILURE": 1},
            "send_issuance_email": {"SUCCESS": 3, "RETRY": 2, "FAILURE": 1},
        },
    )
    issued, email = steps_of(counts, 0)
    assert str(issued) == "Issued 6/10 ⟳1 ✗1"
    assert str(email) == "E-mail 3/9 ⟳2 ✗1"


def test_webhooks_have_a_bar_only_where_somebody_listens() -> None:
    """Nobody waits for what will never come."""
    counts = progress({"issued": 10}, {"send_issuance_email": {"SUCCESS": 10}})
    assert [step.name for step in steps_of(counts, 0)] == ["Issued", "E-mail"]
    assert steps_of(counts, 2)[-1] == Step("Webhook", 0, 20, 0, 0)


def test_credentials_that_were_withdrawn_later_stay_issued_in_the_bar() -> None:
    """A bar never goes backwards."""
    assert steps_of(progress({"issued": 7, "revoked": 2, "superseded": 1}, {}), 0)[0].done == 10


def test_a_batch_is_final_when_no_run_of_it_is_open() -> None:
    """Failures are final, too: they wait for a person."""
    assert is_final(progress({}, {"post_event": {"SUCCESS": 1, "FAILURE": 2, "REVOKED": 1}}))
    for state in ("PENDING", "STARTED", "RETRY"):
        assert not is_final(progress({}, {"post_event": {state: 1}}))
