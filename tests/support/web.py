# SPDX-License-Identifier: Apache-2.0
"""The web application over a product of one process, and clients with keys for it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema_rs
from flask import Flask, Response, request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from conferral.services import tenancy
from conferral.web.app import create_app
from support.product import Product

ISSUE = "/credentials/issue"
READY_SECONDS = 60.0
PASSWORD = "correct horse battery"
_CSRF = re.compile(r'name="csrf" value="([^"]+)"')


def body(email: str = "ada@example.com", **more: Any) -> dict[str, Any]:
    """Return what asks for one credential."""
    return {
        "template_id": "diploma",
        "recipient": {"name": "Ada Lovelace", "email": email},
        "fields": {"course": "Applied Statistics"},
        **more,
    }


def words(html: str) -> str:
    """Return what a page says, without its markup and its head."""
    said = html.partition("<body")[2] or html
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", f"<{said}"))


def stand_in_order(text: str, parts: Sequence[str]) -> bool:
    """Return whether all of these texts stand in a text, one after the other."""
    return re.search(".*?".join(map(re.escape, parts)), text, re.DOTALL) is not None


@dataclass
class Web:
    """The application, and whoever asks it."""

    product: Product
    app: Flask
    _keys: dict[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def client(self) -> FlaskClient:
        """Return a client without cookies of others."""
        return self.app.test_client()

    def key(self, *scopes: str, mode: str = "test", organisation_id: str | None = None) -> dict[str, str]:
        """Return the header of an API key with these scopes; with none, the usual ones."""
        wanted = (mode, organisation_id or self.product.caller.organisation_id, *scopes)
        if wanted not in self._keys:
            rt = self.product.rt
            with rt.database.transaction() as session:
                made = tenancy.create_key(
                    rt,
                    session,
                    wanted[1],
                    "live" if mode == "live" else "test",
                    name="for a test",
                    scopes=scopes or tenancy.DEFAULT_SCOPES,
                )
            self._keys[wanted] = made.text
        return {"Authorization": f"Bearer {self._keys[wanted]}"}

    def get(self, path: str, *scopes: str, **options: Any) -> TestResponse:
        """GET with a key."""
        return self.client.get(path, headers=self.key(*scopes), **options)

    def post(self, path: str, document: Any, *scopes: str, **headers: str) -> TestResponse:
        """POST JSON with a key; headers are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, json=document, headers={**self.key(*scopes), **named})

    def other_organisation(self, name: str = "Other School") -> str:
        """Make another organisation and return its id."""
        rt = self.product.rt
        with rt.database.transaction() as session:
            return tenancy.create_organisation(rt, session, name)

    def person(self, email: str = "owner@example.com", role: str = "owner") -> str:
        """Make a person of the organisation who may sign in; return the address."""
        rt = self.product.rt
        with rt.database.transaction() as session:
            user_id = tenancy.create_user(rt, session, email, "Olga Owner", PASSWORD)
            tenancy.tenancy.add_member(session, self.product.caller.organisation_id, user_id, role)
        return email

    def signed_in(self, role: str = "owner") -> Console:
        """Return a client of a person who has signed in."""
        email = self.person(f"{role}@example.com", role)
        client = self.client
        answer = client.post("/console/login", data={"email": email, "password": PASSWORD})
        assert answer.status_code == 302, answer.get_data(as_text=True)
        return Console(client)


@dataclass
class Console:
    """A signed-in browser without scripts."""

    client: FlaskClient

    def page(self, path: str) -> str:
        """Return a page's HTML."""
        answer = self.client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, answer.get_data(as_text=True)
        return answer.get_data(as_text=True)

    def submit(self, path: str, data: Mapping[str, Any], **options: Any) -> TestResponse:
        """Send a form with the token that the pages carry."""
        found = _CSRF.search(self.page("/console/"))
        assert found is not None
        return self.client.post(path, data={"csrf": found[1], **data}, **options)


def web_of(product: Product, **changes: Any) -> Web:
    """Return the application over a product; every answer of its API is held against its description."""
    settings = dataclasses.replace(product.settings, role="web", **changes)
    app = create_app(settings, product.rt)
    app.after_request(Described(app))
    return Web(product, app)


class Described:
    """Fails whenever the API answers what `/openapi.json` does not say."""

    def __init__(self, app: Flask) -> None:
        self._document = app.api_doc  # type: ignore[attr-defined]  # of flask-openapi3's application

    def __call__(self, response: Response) -> Response:
        """Check one answer."""
        rule = request.url_rule.rule.replace("<", "{").replace(">", "}") if request.url_rule else ""
        operation = self._document["paths"].get(rule, {}).get(request.method.lower())
        if operation is None or response.status_code >= 400:
            return response
        described = operation["responses"].get(str(response.status_code))
        assert described is not None, f"{request.method} {rule}: {response.status_code} is not described"
        content = described.get("content", {})
        assert not content or response.mimetype in content, f"{rule}: {response.mimetype} is not described"
        if response.mimetype == "application/json":
            schema = {**content[response.mimetype]["schema"], "components": self._document["components"]}
            jsonschema_rs.Draft202012Validator(schema).validate(json.loads(response.get_data()))
        return response


@contextmanager
def gunicorn(folder: Path, role: str = "web", **variables: str) -> Iterator[int]:
    """Run the real server on a migrated data directory; yield the port of its pages."""
    port = int(variables.get("CONFERRAL_HTTP_PORT") or free_port())
    environ = {
        **os.environ,
        "CONFERRAL_DATA_DIR": str(folder),
        "CONFERRAL_HTTP_PORT": str(port),
        "CONFERRAL_STREAM_PORT": str(free_port()),
        "CONFERRAL_METRICS_PORT": str(free_port()),
        "CONFERRAL_FLOWER_PORT": str(free_port()),
        "CONFERRAL_ROLE": role,
        "CONFERRAL_WEB_WORKERS": "1",
        **variables,
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:conferral.web.gunicorn_config"]
    with (folder / f"{role}.log").open("wb") as log:
        server = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    asked = int(environ["CONFERRAL_STREAM_PORT"]) if role == "streams" else port
    try:
        _wait(asked, server, folder / f"{role}.log")
        yield asked
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/healthz", timeout=2):
                return
        except (OSError, urllib.error.URLError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text(errors="replace")) from None
            time.sleep(0.05)
