# SPDX-License-Identifier: Apache-2.0
"""Our command line, called as `conferral …` in this process: words in, exit code and output out."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conferral.cli.main import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        """What it printed."""
        return self.raw.decode()

    @property
    def records(self) -> list[dict[str, Any]]:
        """What it printed with `--json`: every line has to be an object."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Shell:
    """A shell on one data directory."""

    data_dir: Path
    variables: Mapping[str, str]

    def run(self, *words: str | Path) -> Done:
        """Run a command and return how it ended; its input is no terminal."""
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        code = 0
        with self._environment(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(word) for word in words])
            except SystemExit as end:
                code = int(end.code or 0)
        out.flush()
        return Done(code, out.buffer.getvalue(), err.getvalue())  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.update({"CONFERRAL_DATA_DIR": str(self.data_dir), **self.variables})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
