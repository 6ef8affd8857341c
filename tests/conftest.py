# SPDX-License-Identifier: Apache-2.0
"""Every test process has a data directory of its own and no Redis unless the test starts one."""

from __future__ import annotations

import os
import tempfile

_folder = tempfile.TemporaryDirectory(prefix="conferral-test-")
for _name in [name for name in os.environ if name.startswith("CONFERRAL_")]:
    if not _name.startswith(("CONFERRAL_TEST_", "CONFERRAL_REQUIRE_")):
        del os.environ[_name]
os.environ["CONFERRAL_DATA_DIR"] = _folder.name
os.environ["CONFERRAL_REDIS_URL"] = "redis://127.0.0.1:1"  # nothing listens on port 1
