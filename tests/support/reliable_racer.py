# SPDX-License-Identifier: Apache-2.0
"""A process of its own that races for runs: `python -m support.reliable_racer <url> <task> <id>…`.

It claims each id it can, executes nothing, settles, and prints the ids that were its own.
"""

from __future__ import annotations

import sys

from conferral.reliable.owner import this_process
from conferral.reliable.runs import claim
from conferral.store.engine import Database
from support.reliable_database import LEASE_SECONDS, ROUTING


def main(url: str, run_ids: list[str]) -> None:
    """Wait for a line, then race."""
    database = Database(url, routing=ROUTING)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for run_id in run_ids:
        with database.transaction() as session:
            claimed = claim(session, [run_id], owner=this_process(), lease_seconds=LEASE_SECONDS)
        for run in claimed:
            with database.transaction() as session:
                run.settle(session)
            sys.stdout.write(f"{run.id}\n")
    database.dispose()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
