# SPDX-License-Identifier: Apache-2.0
"""A tiny step before a child's own program: when the supervisor dies, the child gets SIGTERM.

Started as `python -I -S death_signal.py <supervisor's pid> <program> <arguments…>`. It imports nothing of
Conferral, so it costs a few milliseconds. Linux only; elsewhere the supervisor starts programs directly.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
NOBODY_WAITS = 3


def main() -> None:
    """Ask the kernel for the signal, then become the program."""
    supervisor = int(sys.argv[1])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    # It may have died before the kernel knew our wish.
    if os.getppid() != supervisor:
        sys.exit(NOBODY_WAITS)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 -- becoming that program is the purpose


if __name__ == "__main__":
    main()
