# SPDX-License-Identifier: Apache-2.0
"""Counters and histograms of the web processes; labels never hold an id, a name or a host."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

request_seconds = Histogram(
    "conferral_http_request_duration_seconds",
    "Seconds from request to answer.",
    ["method", "route", "status"],
    buckets=_SECONDS,
)
idempotent_replays = Counter(
    "conferral_idempotent_replays_total", "Repeated requests that were given the stored answer."
)
rate_limited = Counter("conferral_rate_limited_total", "Requests beyond a quota.", ["policy"])
verifications = Counter("conferral_verifications_total", "Verdicts given on public pages.", ["verdict"])
unlogged_signatures = Counter(
    "conferral_unlogged_signatures_total",
    "True signatures of ours on documents that we have no record of: a stolen key looks like this.",
)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Measure one request; the route is our pattern, never the path."""
    # A client chooses its method freely, and every new label is a new series.
    known = method if method in _METHODS else "other"
    request_seconds.labels(known, route, str(status)).observe(seconds)
