# SPDX-License-Identifier: Apache-2.0
"""`celery -A support.reliable_app`: a tiny application, told everything by its environment."""

from __future__ import annotations

import json
import os

from conferral.reliable.app import install_worker
from support.reliable_tasks import build

_told = json.loads(os.environ["RELIABLE_TEST_APP"])
_pool = _told.pop("pool", None)
app, _ = build(**_told)
if _pool is not None:
    bound = app.conferral_bound  # type: ignore[attr-defined]
    install_worker(app, bound.routing.pool(_pool))
