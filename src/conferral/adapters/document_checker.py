# SPDX-License-Identifier: Apache-2.0
"""Check the signature of a document that anybody may have made, in a child that can be killed.

Canonicalising a stranger's graph can take exponential time; our own bounds say no early, and the kernel says
it again. The keys are handed in: the child decides nothing but whether a signature is true.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from conferral.domain.canonical import MAX_DOCUMENT_BYTES
from conferral.domain.verification import Finding, fails

DEADLINE_SECONDS: Final = 10.0  # of the clock, the start of the child included; it takes 0.4 s when idle
CPU_SECONDS: Final = 2  # of the processor, once the child has started; a sound document takes 0.01
_CHILD: Final = "conferral.adapters.document_checker_child"
# Nothing of ours: the child has no use for settings, and no way to a network.
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "TZ": "UTC", "MALLOC_ARENA_MAX": "2"}


class NotChecked(Exception):
    """The child did not come to an end in time: this machine is busy, the document is not to blame."""


def check_signature(document: bytes, keys: Mapping[str, bytes], *, purpose: str | None = None) -> Finding:
    """Check the proof of one foreign document, as `credential_checks.check_signature` does, in a child.

    Args:
        document: JSON as it came, at most 256 KiB.
        keys: the public keys that count, by verification method.
        purpose: another proof purpose than assertionMethod.

    Returns:
        True; false with the reason, also when it needs more than two seconds; null when the key is unknown.

    Raises:
        NotChecked: the child could not be started or did not answer within ten seconds.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        return fails("the document is larger than 256 KiB")
    asked = {
        "keys": {method: key.hex() for method, key in keys.items()},
        "purpose": purpose,
        "cpu_seconds": CPU_SECONDS,
    }
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", _CHILD],
            input=json.dumps(asked).encode() + b"\n" + document,
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotChecked from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return fails(f"the document needs more than {CPU_SECONDS} s or more memory than a credential does")
    return Finding(ok=answer["ok"], detail=str(answer["detail"]))
