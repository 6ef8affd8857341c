# SPDX-License-Identifier: Apache-2.0
"""Say "alive" by touching a file: a sign that costs nothing to give and to read.

`<directory>/<node>.alive`, the directory from CONFERRAL_ALIVE_DIRECTORY; without it nobody
looks and nothing is touched. It must be touched by the loop whose life it stands for.
"""

from __future__ import annotations

import os
from pathlib import Path

ALIVE_SECONDS = 5.0  # how often; who looks calls 30 s old
DIRECTORY_VARIABLE = "CONFERRAL_ALIVE_DIRECTORY"


def touch(node: str) -> None:
    """Touch the file of a node, such as `mail@host`."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if directory:
        (Path(directory) / f"{node}.alive").touch()
