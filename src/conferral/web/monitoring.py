# SPDX-License-Identifier: Apache-2.0
"""What the streams process serves besides streams: its health, and metrics on a port of their own."""

from __future__ import annotations

import os
from typing import Final

from flask import Flask, Response, abort, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess

from conferral.web.gauges import StateCollector
from conferral.web.site import Site

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where all processes of a host leave their counters, if they were started with it."""


def install(app: Flask, site: Site) -> None:
    """Serve health everywhere, and metrics on their port only, so that no proxy publishes them."""
    state = CollectorRegistry()
    state.register(StateCollector(site))

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.get("/metrics")
    def metrics() -> Response:
        if request.environ.get("SERVER_PORT") != str(site.settings.metrics_port):
            abort(404)
        body = generate_latest(_counted()) + generate_latest(state)
        return Response(body, content_type=CONTENT_TYPE_LATEST)


def _counted() -> CollectorRegistry:
    """Return the counters of all processes of this host, or of this one alone."""
    if not os.environ.get(SHARED_FOLDER):
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
