# SPDX-License-Identifier: Apache-2.0
"""Who holds a lease: a process that can be told dead without waiting for the lease's end.

A pid alone lies (it is reused, and every container has its pid 7); boot id, PID namespace,
pid and start time together name one process for ever.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

_UNKNOWN = "unknown"


def this_process() -> str:
    """Return `boot/namespace/pid/start` of the calling process (at most 120 characters)."""
    return _describe(os.getpid())


@lru_cache(maxsize=1)
def _describe(pid: int) -> str:
    # Cached by pid: a forked child has another pid, so it never inherits its parent's name.
    return f"{_boot_id()}/{_pid_namespace()}/{pid}/{_start_time(pid)}"


def is_gone(owner: str) -> bool:
    """Return whether the owner certainly no longer runs; False when that cannot be known here.

    >>> is_gone(this_process()), is_gone("another-boot/1/1/1"), is_gone("nonsense")
    (False, False, False)
    """
    parts = owner.split("/")
    if len(parts) != 4 or _UNKNOWN in parts or not parts[2].isdigit():  # noqa: PLR2004 - an owner's parts
        return False
    boot, namespace, pid, started = parts
    if boot != _boot_id() or namespace != _pid_namespace():
        return False
    if not _exists(int(pid)):
        return True
    # /proc may be mounted so that other users' processes are invisible: unreadable is not gone.
    now_started = _start_time(int(pid))
    return now_started not in (_UNKNOWN, started)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@lru_cache(maxsize=1)
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _UNKNOWN


@lru_cache(maxsize=1)
def _pid_namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name.removeprefix("pid:[").removesuffix("]")
    except OSError:
        return _UNKNOWN


def _start_time(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _UNKNOWN
    fields = stat[stat.rindex(")") + 2 :].split()
    # A zombie has ended; only its parent has not asked yet.
    return "ended" if fields[0] in "ZX" else fields[19]
