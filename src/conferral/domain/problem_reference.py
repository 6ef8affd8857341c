# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference/errors.md from the table of problems; a test keeps the two equal.

One section a code, so that a code in an answer, a log or a file of wrong rows has a place to be read about.
It returns text and must never know more than the table: what is missing here is missing there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from conferral.domain.problems import GROUPS, ProblemType

_OPENING: Final = """\
# Errors

Every error has a code that does not change. An answer of the API is a problem document (RFC 9457,
`application/problem+json`):

```json
{"type": "https://…/problems/validation_failed", "title": "Some values are not valid", "status": 422,
 "detail": "1 value(s) are not valid", "instance": "/v1/credentials", "code": "validation_failed",
 "request_id": "req_…", "retryable": false, "docs": "https://…/problems/validation_failed",
 "errors": [{"pointer": "#/recipient/email", "code": "email_invalid", "detail": "not an e-mail address (…)"}]}
```

`detail` is for people and may change; `errors` names every wrong value of the request at once. Quote the
`request_id` when you ask the operator: it finds the line in the log. No answer holds an exception's text.

This page is generated: `python -m conferral.domain.problem_reference > docs/reference/errors.md`.
"""

_MEANINGS: Final = {
    "answers": "What a request may be answered with.",
    "values": "What may be wrong with one value: in `errors` of a 422, and in rows of a CSV file.",
    "runs": "Why a run is tried again, rests or has failed: in a task's status and timeline.",
}


def page() -> str:
    """Return the whole reference page as Markdown."""
    return "\n".join([_OPENING, *_lines()])


def _lines() -> Iterator[str]:
    for group, problems in GROUPS.items():
        yield from (f"## {group.title()}", "", _MEANINGS[group], "")
        for problem in problems:
            yield from (f"### `{problem.code}`", "", f"{problem.title}. {_kind(problem)}", "")
            yield from (f"→ {problem.cure}", "")


def _kind(problem: ProblemType) -> str:
    if problem.status:
        return f"Status {problem.status}{'; worth repeating' if problem.retryable else ''}."
    return "Tried again by itself." if problem.retryable else "Final until a person acts."


if __name__ == "__main__":
    sys.stdout.write(page())
