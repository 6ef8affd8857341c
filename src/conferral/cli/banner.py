# SPDX-License-Identifier: Apache-2.0
"""What `conferral up` says when it is ready: where to look, how to get in, what to try next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_WIDTH = 10


@dataclass(frozen=True)
class Ready:
    """What there is to tell.

    Attributes:
        demo: login, password, api_key and organisation_id of the demo organisation; empty in production.
        late: processes that are not ready yet.
    """

    seconds: float
    console_url: str
    flower_url: str
    flower_user: str
    flower_password: str
    data_dir: Path
    demo: Mapping[str, str]
    late: Sequence[str]


def lines(ready: Ready, *, colour: bool, command: str, example: str) -> Iterator[str]:
    """Yield the lines of the banner.

    Args:
        ready: what there is to tell.
        colour: whether escape codes may be used.
        command: how this person calls us, `./run` or `conferral`.
        example: a CSV file to begin with.
    """
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    yield ""
    yield f"  {bold}Conferral is ready{plain} {dim}after {ready.seconds:.1f} s{plain}"
    yield ""
    for label, value in _facts(ready):
        yield f"  {dim}{label:<{_WIDTH}}{plain} {value}"
    if ready.late:
        yield f"  {dim}{'Waiting':<{_WIDTH}}{plain} {', '.join(ready.late)} (see logs/)"
    yield ""
    yield f"  {dim}Next, in another terminal:{plain}"
    for line in _next_commands(ready, command, example):
        yield f"    {line}"
    yield ""
    yield f"  {dim}Ctrl-C stops everything; what is under way goes on after the next start.{plain}"
    yield ""


def _facts(ready: Ready) -> Iterator[tuple[str, str]]:
    yield "Console", ready.console_url
    if ready.demo.get("login"):
        password = ready.demo.get("password") or "(set by you)"
        yield "Login", f"{ready.demo['login']}   password {password}"
    if ready.demo.get("api_key"):
        yield "Test key", ready.demo["api_key"]
    yield "Flower", f"{ready.flower_url}   user {ready.flower_user}   password {ready.flower_password}"
    yield "Data", str(ready.data_dir)


def _next_commands(ready: Ready, command: str, example: str) -> Iterator[str]:
    if not ready.demo:
        yield f"{command} org create 'Name of your organisation'"
        yield f"{command} keys create --live"
        yield f"{command} status"
        return
    yield f"{command} batch issue {example} --template diploma --yes --watch"
    body = {
        "template_id": "diploma",
        "recipient": {"name": "Ada Lovelace", "email": "ada@example.org"},
        "fields": {"course": "Analytical Engines"},
    }
    yield f"curl {ready.console_url}/credentials/issue -H 'Content-Type: application/json' \\"
    yield f"     -H 'Authorization: Bearer {ready.demo.get('api_key', '')}' \\"
    yield f"     -d '{json.dumps(body)}'"
    yield f"{command} status"
