# SPDX-License-Identifier: Apache-2.0
"""What the streams process serves besides streams: its health, and metrics on a port of their own."""

from __future__ import annotations

from flask import Flask, Response, abort, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from conferral.web.site import site


def install(app: Flask) -> None:
    """Serve health everywhere and metrics on their port only, so that no proxy publishes them."""

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @app.get("/metrics")
    def metrics() -> Response:
        if request.environ.get("SERVER_PORT") != str(site().settings.metrics_port):
            abort(404)
        body = generate_latest(REGISTRY)
        return Response(body, content_type=CONTENT_TYPE_LATEST)
