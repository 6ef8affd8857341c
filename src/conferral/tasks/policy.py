# SPDX-License-Identifier: Apache-2.0
"""How often each kind of work is tried: ceilings in seconds; n ceilings allow n + 1 attempts."""

from __future__ import annotations

from typing import Final

from conferral.reliable.backoff import RetryPolicy

MINUTE: Final = 60.0
HOUR: Final = 3600.0

# Rendering and signing: the chain waits elsewhere, so five attempts in minutes are plenty.
ISSUE: Final = RetryPolicy(ceilings_seconds=(2.0, 8.0, 30.0, 2 * MINUTE))
# The log is ours: what fails here is the database, and it comes back.
SEQUENCE: Final = RetryPolicy(ceilings_seconds=(1.0, 2.0, 5.0, 10.0, 30.0, MINUTE, MINUTE, MINUTE))
# 11 attempts within a day, as mail relays are used to.
EMAIL: Final = RetryPolicy(
    ceilings_seconds=(
        5.0, 30.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 6 * HOUR, 9 * HOUR,
    ),
    growing=True,
)  # fmt: skip
# 10 attempts within three days: a receiver may be down over a weekend.
WEBHOOK: Final = RetryPolicy(
    ceilings_seconds=(
        5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR,
    ),
    growing=True,
)  # fmt: skip
# What is withdrawn must be seen to be withdrawn: 9 attempts, the last ones after hours.
PUBLISH: Final = RetryPolicy(
    ceilings_seconds=(1.0, 5.0, 15.0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 2 * HOUR), growing=True
)
MAINTENANCE: Final = RetryPolicy(ceilings_seconds=(10.0, MINUTE, 5 * MINUTE))
