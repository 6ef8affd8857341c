# SPDX-License-Identifier: Apache-2.0
"""The child that canonicalises a stranger's document: started and killed by `adapters.document_checker`.

It reads one line of JSON (public keys, limits) and the document from its input, limits itself before it looks
at the document, and answers one finding. It knows no secret and opens no file.
"""

from __future__ import annotations

import json
import math
import sys
import time

from conferral.adapters.pdf_reader_child import limit_resources
from conferral.domain import canonical, credential_checks, data_integrity
from conferral.domain.verification import Finding, fails


def main() -> None:
    """Answer `{"ok": true|false|null, "detail": …}`."""
    asked = json.loads(sys.stdin.buffer.readline())
    content = sys.stdin.buffer.read(canonical.MAX_DOCUMENT_BYTES + 1)
    limit_resources(math.ceil(time.process_time()) + int(asked["cpu_seconds"]))
    keys = {method: bytes.fromhex(key) for method, key in asked["keys"].items()}
    try:
        found = _checked(content, keys, asked["purpose"] or data_integrity.ASSERTION)
    except MemoryError:
        found = fails("the document needs more memory than a credential does")
    sys.stdout.write(json.dumps({"ok": found.ok, "detail": found.detail}))


def _checked(content: bytes, keys: dict[str, bytes], purpose: str) -> Finding:
    try:
        document = canonical.read_document(content)
    except canonical.UnsafeDocument as unsafe:
        return fails(unsafe.reason)
    return credential_checks.check_signature(document, keys, purpose=purpose)


if __name__ == "__main__":
    main()
