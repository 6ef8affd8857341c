# SPDX-License-Identifier: Apache-2.0
"""The main process of a pool, or of Beat: `python -m conferral.cli.node worker POOL | beat`.

It does what `celery worker` and `celery beat` do, without Celery's command line, which imports a prompt,
a syntax highlighter and every plug-in: a fifth of a node's start and 10 MB of each. Nothing here opens the
database; what needs it is built by the tasks, after fork.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from conferral.cli.processes import Pool, pool_named
from conferral.settings import Settings

# On one host a person who asks is answered before work that was promised: when the cores are
# taken, the web gets three parts of four. A pool alone on its host notices nothing.
POOL_NICENESS = 5
SCHEDULER = "conferral.reliable.beat:SingletonScheduler"


def main(arguments: Sequence[str]) -> int:
    """Run until a signal ends it; return the exit status."""
    if arguments[0] == "beat":
        return beat()
    return worker(pool_named(arguments[1]))


def worker(pool: Pool) -> int:
    """Run one pool: SIGTERM ends it after its current tasks, SIGQUIT at once."""
    from conferral.tasks.celery_app import app

    settings = Settings.from_env(os.environ)
    os.nice(POOL_NICENESS)
    node = app.Worker(
        hostname=f"{pool.name}@{socket.gethostname()}",
        queues=[pool.queue],
        pool_cls=pool.kind,
        concurrency=getattr(settings, pool.slots),
        # Threads have none: every adapter has its own deadline.
        time_limit=pool.hard_limit_seconds,
        optimization="fair",
        # Fewer ways to fail to come back after Redis was away.
        without_gossip=True,
        without_mingle=True,
        loglevel="INFO",
        quiet=True,
        no_color=True,
    )
    node.start()
    return int(node.exitcode or 0)


def beat() -> int:
    """Run the clock of the schedules."""
    from conferral.tasks.celery_app import app

    app.Beat(scheduler=SCHEDULER, loglevel="INFO", quiet=True, no_color=True).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
