# SPDX-License-Identifier: Apache-2.0
"""The application: everything of one web process, put together once, after fork.

Pages and API under the role `web`; health and metrics alone under the role `streams`. No
handler opens a signing key: this process does not hold the key that seals them.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI

from conferral import __version__, observability, wiring
from conferral.services.runtime import Runtime
from conferral.settings import Settings
from conferral.web import envelope, gate, health, monitoring, problems, templating, vc_api
from conferral.web.api import (
    batch_steering,
    batch_upload,
    batches,
    credentials,
    mailbox,
    ops,
    signing_keys,
    standing,
    tasks,
    webhooks,
)
from conferral.web.console import PAGES as CONSOLE
from conferral.web.limits import Limiter
from conferral.web.previews import Previews
from conferral.web.public import evidence, small_pages, verification, verify
from conferral.web.site import EXTENSION, Site
from conferral.web.waiting import Patience

MAX_BODY: Final = 1024 * 1024  # bytes; uploads of batches have a limit of their own
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
KEY_SCHEME: Final[dict[str, Any]] = {
    "api_key": {"type": "http", "scheme": "bearer", "bearerFormat": "conferral_…"}
}
PAGES: Final = (
    health.pages, verification.pages, verify.pages, vc_api.pages, evidence.pages, small_pages.pages, CONSOLE,
)  # fmt: skip
RESOURCES: Final = (
    credentials.api, standing.api, tasks.api, batches.api, batch_upload.api, batch_steering.api,
    webhooks.api, signing_keys.api, mailbox.api, ops.api,
)  # fmt: skip


def create_app(settings: Settings | None = None, runtime: Runtime | None = None) -> Flask:
    """Return the WSGI application of this process.

    Args:
        settings: checked settings; None reads the environment and sends logs to standard error.
        runtime: one that was built already; None builds it.
    """
    if settings is None:
        settings = Settings.from_env(os.environ)
        observability.configure()
    site = Site(
        settings=settings,
        runtime=runtime or wiring.build(settings),
        limiter=Limiter(settings.result_url),
        patience=Patience(),
        previews=Previews(),
    )
    app = _application()
    app.extensions[EXTENSION] = site
    envelope.install(app, site)
    problems.install(app)
    if settings.role == "streams":
        monitoring.install(app, site)
        return app
    templating.install(app)
    app.config["TRUSTED_HOSTS"] = _trusted_hosts(settings)
    for pages in PAGES:
        app.register_blueprint(pages)
    for resource in RESOURCES:
        app.register_api(resource)
    _publish_reference(app)
    if runtime is None:
        # Which characters the fonts have takes a second to find out: neither in somebody's request,
        # nor before this process says that it is there.
        threading.Thread(target=lambda: site.runtime.fonts.unprintable("a"), daemon=True).start()
    return app


def _application() -> OpenAPI:
    app = OpenAPI(
        "conferral.web",
        info=Info(title="Conferral", version=__version__, description="Issue digital credentials."),
        security_schemes=KEY_SCHEME,
        doc_ui=False,
        validation_error_callback=problems.invalid,
        validation_error_model=problems.ProblemDocument,
    )
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the provider that Flask uses by default
    return app


def _trusted_hosts(settings: Settings) -> list[str]:
    known = [urlsplit(settings.public_url).hostname or "localhost"]
    return known if settings.is_production else [*known, *LOCAL_HOSTS]


def _publish_reference(app: OpenAPI) -> None:
    document = app.api_doc
    for rule in app.url_map.iter_rules():
        scope = gate.scope_of(app.view_functions[rule.endpoint])
        described = document["paths"].get(rule.rule.replace("<", "{").replace(">", "}"), {})
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if scope is not None and method.lower() in described:
                described[method.lower()]["x-required-scope"] = scope

    @app.get("/openapi.json", doc_ui=False)
    def openapi() -> Response:
        """Return the API's description (OpenAPI 3.1)."""
        return jsonify(document)
