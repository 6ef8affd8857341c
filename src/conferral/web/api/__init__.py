# SPDX-License-Identifier: Apache-2.0
"""The HTTP API, one file a resource; the gate stands before every one of them."""

from __future__ import annotations

from flask_openapi3.blueprint import APIBlueprint

from conferral.web import gate
from conferral.web.api.models import PROBLEM_RESPONSES, SECURITY


def blueprint(name: str) -> APIBlueprint:
    """Return the blueprint of one resource, behind the gate."""
    made = APIBlueprint(
        name,
        f"conferral.web.api.{name}",
        abp_responses=PROBLEM_RESPONSES,
        abp_security=SECURITY,
    )
    made.before_request(gate.admit)
    return made
