# SPDX-License-Identifier: Apache-2.0
"""Who asks: the client's address, by the word of named proxies and of nobody else."""

from __future__ import annotations

import ipaddress

from flask import request

from conferral.web.site import site


def client_address() -> str:
    """Return the client's address; forged forwarding headers change nothing."""
    peer = request.remote_addr or ""
    if not _is_trusted(peer):
        return peer
    # The nearest address that is none of our proxies: what stands left of it is hearsay.
    for hop in reversed([part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",")]):
        if hop and not _is_trusted(hop):
            return hop
    return peer


def _is_trusted(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in site().settings.trusted_proxies)
