# SPDX-License-Identifier: Apache-2.0
"""Every page in a real browser: light, dark, at 320 pixels; rules of accessibility; our own policy.

Screenshots are left in the folder that CONFERRAL_TEST_SCREENSHOTS names, if it is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conferral.store import tables
from support import require
from support.product import product_on
from support.web import ISSUE, PASSWORD, body, free_port, gunicorn, web_of

FOLDER = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class House:
    """A running server with something to look at."""

    base: str
    email: str
    public: dict[str, str]
    console: dict[str, str]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Issue what shows every kind of page, then serve it."""
    folder = tmp_path_factory.mktemp("house")
    port = free_port()
    variables = {
        "CONFERRAL_REDIS_URL": "redis://127.0.0.1:1/0",
        "CONFERRAL_HTTP_PORT": str(port),
        "CONFERRAL_PUBLIC_URL": f"http://localhost:{port}",
    }
    with product_on("sqlite", folder, **variables) as product:
        web = web_of(product)
        email = web.person()
        made = {
            name: web.post(ISSUE, body(address, recipient={"name": name, "email": address}, **more)).json
            for name, address, more in (
                ("Zoë Müller", "zoe@example.com", {}),
                ("محمد عبد الله", "m@example.com", {"external_id": "long-" + "x" * 150}),
                ("Ana Pérez", "ana@example.com", {"issued_on": "2024-01-01", "expires_on": "2025-01-01"}),
                ("Bad Data", "bad-data@test.invalid", {}),
                ("Bounced Mail", "bounce@test.invalid", {}),
            )
        }
        web.post("/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/hook"})
        row = {"recipient": {"name": "Row One", "email": "row@example.com"}, "fields": {"course": "Ethics"}}
        batch = web.post("/v1/batches", {"template_id": "diploma", "rows": [row]}, Idempotency_Key="b").json
        product.run(patience_seconds=60)
        product.promise("tasks.reports.generate_daily_issuance_report")
        product.run()
        token = {name: product.credential(one["credential_id"]).token for name, one in made.items()}
        ids = {name: one["credential_id"] for name, one in made.items()}
        (report,) = product.rows(tables.reports)
        message = product.mailbox()[0].id
    # The clock of the rows stands in the past; sessions are made by the server, in the present.
    console = {
        "home": "/console/",
        "credentials": "/console/credentials",
        "credential": f"/console/credentials/{ids['Zoë Müller']}",
        "long": f"/console/credentials/{ids['محمد عبد الله']}",
        "failed": f"/console/credentials/{ids['Bad Data']}",
        "nothing": "/console/credentials?q=nobody",
        "mailbox": "/console/mailbox",
        "message": f"/console/mailbox/{message}",
        "batches": "/console/batches",
        "batch": f"/console/batches/{batch['batch_id']}",
        "reports": "/console/reports",
        "report": f"/console/reports/{report.id}",
        "webhooks": "/console/webhooks",
        "operations": "/console/operations",
        "dead-letters": "/console/operations/dead-letters",
    }
    public = {
        "welcome": "/",
        "wrong-code": "/c?code=nonsense",
        "valid": f"/c/{token['Zoë Müller']}",
        "right-to-left": f"/c/{token['محمد عبد الله']}",
        "expired": f"/c/{token['Ana Pérez']}",
        "unsubscribe": f"/u/{token['Zoë Müller']}",
        "code": "/problems/validation_failed",
        "login": "/console/login",
    }
    with gunicorn(folder / "data", **variables):
        yield House(f"http://localhost:{port}", email, public, console)


def look(house: House, pages: dict[str, str], **options: Any) -> dict[str, Any]:
    """Look at pages and return what was found."""
    require.program("node", "apt-get install nodejs")
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        chromium = require.program("chromium", "apt-get install chromium")
    if not (FOLDER / "node_modules").is_dir():
        require.missing("the browser's driver is not installed", "npm ci --prefix tests/e2e")
    job = {"base": house.base, "chromium": chromium, "pages": pages, **options}
    out = os.environ.get("CONFERRAL_TEST_SCREENSHOTS")
    if out:
        Path(out).mkdir(parents=True, exist_ok=True)
        job["out"] = out
    done = subprocess.run(
        ["node", "look.mjs"], input=json.dumps(job), capture_output=True, text=True, cwd=FOLDER, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def faults(report: dict[str, Any]) -> list[str]:
    """Return what nobody should have to see."""
    found = list(report["said"])
    for name, page in report["pages"].items():
        if page["status"] != 200:
            found.append(f"{name}: status {page['status']}")
        if page["overflow"] > 0:
            found.append(f"{name}: {page['overflow']} px too wide")
        found += [f"{name}: {violation}" for violation in page.get("violations", [])]
    return found


def test_public_pages_are_for_everybody(house: House) -> None:
    """No broken rule of WCAG 2.2 AA that a machine can find, no sideways scrolling, no refused resource."""
    assert faults(look(house, house.public)) == []


def test_the_console_is_for_everybody(house: House) -> None:
    """The same for somebody who has signed in."""
    login = {"email": house.email, "password": PASSWORD}
    assert faults(look(house, house.console, login=login)) == []


def test_pages_work_without_scripts(house: House) -> None:
    """Signing in and every page, with JavaScript switched off."""
    login = {"email": house.email, "password": PASSWORD}
    pages = {f"plain-{name}": path for name, path in {**house.public, **house.console}.items()}
    assert faults(look(house, pages, login=login, javascript=False)) == []
