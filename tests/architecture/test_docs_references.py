# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from conferral.domain import credential, problem_reference, row_finding, webhook_event
from conferral.domain.problems import PROBLEMS
from conferral.domain.verification import EXIT_CODES, Verdict
from conferral.reliable import tables
from conferral.services.operations import BEAT, DISPATCHER
from conferral.settings import Settings, prepare_data_dir
from conferral.tasks.celery_app import TASKS
from conferral.web.app import create_app
from conferral.wiring import ROUTES, SCHEDULE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "conferral"
REFERENCE = ROOT / "docs" / "reference"
# The first argument, but for these: a pointer or a row comes before the code.
CODE_POSITION = {"FieldError": 1, "RowFinding": 3, "_Rule": 2}
CODED = {
    "Retryable", "Permanent", "Ambiguous", "Snooze", "ChannelPaused", "EndpointFailed", "EndpointGone",
    "Problem", "TableRefused", *CODE_POSITION,
}  # fmt: skip
METRIC_MAKERS = {"Counter", "Histogram", "Gauge", "Summary", "_Family"}
# What is not for clients: pages for browsers are described as pages.
UNLISTED_ROUTES = {"/static/<path:filename>"}


def reference(name: str) -> str:
    """Return a page of the reference."""
    return REFERENCE.joinpath(name).read_text(encoding="utf-8")


def calls() -> Iterator[tuple[Path, str, ast.Call]]:
    """Yield every call in the package with the name that is called."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
                yield path, name, node


def codes_in_source() -> dict[str, Path]:
    """Return every error code that the source writes out, with a file that does."""
    found: dict[str, Path] = {}
    for path, name, node in calls():
        values: list[ast.expr] = []
        if name in CODED and len(node.args) > CODE_POSITION.get(name, 0):
            values.append(node.args[CODE_POSITION.get(name, 0)])
        values += [one.value for one in node.keywords if one.arg == "error_code"]
        for value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[value.value] = path
    return found


def metrics_in_source() -> set[str]:
    """Return the names of all metrics as a scrape shows them, without the suffixes of histograms."""
    found = {f"conferral_{name}_leader" for name in (BEAT, DISPATCHER)}  # made of the names of what is led
    for path, name, node in calls():
        if name not in METRIC_MAKERS or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        metric = str(node.args[0].value)
        if name == "_Family" or metric.startswith("conferral_"):
            found.add(metric if metric.startswith("conferral_") else f"conferral_{metric}")
        assert path.is_relative_to(PACKAGE)
    return found


def routes(app: Flask) -> list[tuple[str, str]]:
    """Return method and path of every route, paths as the reference writes them: `/c/{token}`."""
    return sorted(
        (method, re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", str(rule)))
        for rule in app.url_map.iter_rules()
        if str(rule) not in UNLISTED_ROUTES
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )


def test_the_page_of_errors_is_the_table_of_errors() -> None:
    """Whoever meets a code finds it under its name."""
    text = reference("errors.md")
    assert text == problem_reference.page(), "run: python -m conferral.domain.problem_reference"
    assert [code for code in PROBLEMS if f"### `{code}`" not in text] == []


def test_every_code_that_is_raised_is_in_the_table() -> None:
    """No error reaches anybody with a code that nobody explains."""
    warnings = set(row_finding.WARNINGS)
    unknown = {code: str(path) for code, path in codes_in_source().items() if code not in PROBLEMS}
    assert {code: path for code, path in unknown.items() if code not in warnings} == {}
    assert len(codes_in_source()) > 40  # the search finds what it looks for


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    """A dashboard is built from the page alone."""
    documented = set(re.findall(r"`(conferral_[a-z_]+)", reference("metrics.md")))
    assert documented == metrics_in_source()
    assert len(documented) > 20


def test_every_state_is_documented() -> None:
    """Each word that a client may see has its meaning on the page of states."""
    text = reference("states.md")
    words = {*tables.STATES, *credential.STATES, *Verdict}
    outcomes = {"success", "retry", "snoozed", "failure", "ambiguous", "lost", "fenced"}
    deliveries = {"pending", "sent", "failed", "held", "enabled", "disabled"}
    batches = {"validating", "ready", "running", "paused", "completed", "cancelled"}
    missing = [word for word in words | outcomes | deliveries | batches if f"`{word}`" not in text]
    assert missing == []
    assert [verdict for verdict, code in EXIT_CODES.items() if f"| `{verdict}` | {code} |" not in text] == []


def test_every_event_type_is_documented() -> None:
    """The page says which events are sent, and which names are only kept free."""
    text = ROOT.joinpath("docs/how-to/webhooks.md").read_text(encoding="utf-8")
    assert [name for name in webhook_event.EVENT_TYPES if f"`{name}`" not in text] == []


@pytest.mark.parametrize("codes", [row_finding.WARNINGS])
def test_every_warning_about_a_row_is_documented(codes: tuple[str, ...]) -> None:
    """A warning that nobody explains is noise."""
    assert [code for code in codes if f"`{code}`" not in reference("csv.md")] == []


def test_every_route_of_queues_and_every_schedule_is_documented() -> None:
    """Who looks for a task finds its queue; who looks for a time finds it."""
    text = reference("tasks.md")
    assert [
        pattern for pattern, queue in ROUTES if f"`{pattern}`" not in text or f"`{queue}`" not in text
    ] == []
    assert [name for name in SCHEDULE if f"| `{name}` |" not in text] == []


def test_every_task_is_documented_with_its_attempts() -> None:
    """Name, number of attempts and longest first pause on the page are those of the declaration."""
    rows = re.findall(r"^\| `(tasks\.[a-z_.]+)` \|[^|]*\| (\d+)", reference("tasks.md"), re.MULTILINE)
    declared = {name: one.policy.max_attempts for name, one in TASKS.items()}
    assert {name: int(count) for name, count in rows} == declared


def test_every_http_route_is_documented() -> None:
    """The reference names method and path of everything the web process answers."""
    settings = Settings.from_env(os.environ, role="web")
    prepare_data_dir(settings)
    text = reference("api.md")
    missing = [
        f"{method} {path}"
        for method, path in routes(create_app(settings))
        if f"`{method} {path}`" not in text
    ]
    assert missing == []
