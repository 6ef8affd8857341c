# SPDX-License-Identifier: Apache-2.0
"""A batch from a CSV file: the same reading as on the command line, over HTTP.

The file is streamed to a temporary one and read in pieces: memory does not grow with it. Only the good rows
are kept; the file itself is not.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Annotated, Any, Final

from flask import Response, g, jsonify, request
from pydantic import Field
from sqlalchemy.orm import Session

from conferral.domain.problems import FieldError, Problem
from conferral.domain.row_finding import RowFinding
from conferral.domain.table import MAX_COLUMNS
from conferral.domain.text_file import MAX_BYTES, PIECE
from conferral.services import admission, batching, reading_csv
from conferral.services.idempotency import Answer
from conferral.services.reading_csv import How, Reading
from conferral.web import idempotent
from conferral.web.api import blueprint
from conferral.web.api.models import MOST_ROWS, MOST_TEXT, Name, Strict
from conferral.web.gate import CSV, needs
from conferral.web.site import caller, runtime

api = blueprint("batch_upload")

ACCEPTED: Final = 202
OK: Final = 200
SHOWN_FINDINGS: Final = 1_000  # of one answer; the counts are exact
MOST_TO_MEND: Final = 1 << 20  # bytes of rows to mend in an answer; beyond it they are in the client's file
_IN_MEMORY: Final = 1 << 20


class UploadQuery(Strict):
    """How the file is to be read, and what to do with it."""

    template_id: Annotated[Name, Field(description="A template's id or name")]
    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")] = ""
    map: Annotated[
        list[Annotated[str, Field(max_length=MOST_TEXT)]],
        Field(max_length=MAX_COLUMNS, description="field=column, such as course=Kurs"),
    ] = []  # noqa: RUF012 -- pydantic copies it
    date_format: Annotated[str, Field(max_length=40, description="such as DD/MM/YYYY")] | None = None
    dry_run: Annotated[bool, Field(description="check, and issue nothing")] = False
    skip_bad: Annotated[bool, Field(description="issue the good rows although others are wrong")] = False


class FindingOut(Strict):
    """One error or warning of a row; `column` and `value` are null when it is about the whole row."""

    row: int
    column: str | None
    value: str | None
    code: str
    severity: str
    message: str


class FileOut(Strict):
    """What a file says: `rows` = `ready` + `to_mend` + `issued_before`."""

    encoding: str
    delimiter: str
    columns: dict[str, str]
    ignored_columns: list[str]
    rows: int
    ready: int
    to_mend: int
    issued_before: int
    errors: int
    warnings: int
    findings: list[FindingOut]


class CheckedFileOut(FileOut):
    """A file that was checked; nothing was issued. `rows_to_mend` is CSV, null where it is too long."""

    batch_id: None
    rows_to_mend: str | None


class IssuedFileOut(FileOut):
    """A batch that will be issued."""

    batch_id: str
    status: str
    links: dict[str, str]


@api.post("/v1/batches/csv", responses={202: IssuedFileOut, 200: CheckedFileOut})
@needs("batches:write", max_body=MAX_BYTES, media=CSV)
def upload(query: UploadQuery) -> Response:
    """Issue a credential for every row of a CSV file, which is the body.

    With one wrong row nothing is issued, unless `skip_bad` is said. `dry_run` only checks, and returns the
    rows to mend; otherwise Idempotency-Key is required.
    """
    with _body() as (content, digest):
        # What makes two requests the same: the question and the file's digest.
        g.json = {"query": query.model_dump(), "sha256": digest}
        if query.dry_run:
            return jsonify(_checked(query, content))
        return idempotent.once(lambda session: _create(session, query, content), required=True)


def _checked(query: UploadQuery, content: IO[bytes]) -> dict[str, Any]:
    rt = runtime()
    with rt.database.snapshot() as session:
        template = admission.find_template(session, caller().organisation_id, query.template_id)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as bad:
        reading = reading_csv.read(rt, caller(), template, content, _how(query), to_mend=bad)
        is_short = bad.tell() <= MOST_TO_MEND
        bad.seek(0)
        rows = bad.read(MOST_TO_MEND).decode() if is_short and reading.bad_rows else None
    return {**_described(reading), "batch_id": None, "rows_to_mend": rows}


def _create(session: Session, query: UploadQuery, content: IO[bytes]) -> Answer:
    rt = runtime()
    template = admission.find_template(session, caller().organisation_id, query.template_id)
    reading = reading_csv.read(rt, caller(), template, content, _how(query))
    if reading.bad_rows and not (query.skip_bad and reading.rows):
        raise _refused(reading)
    if not reading.rows:
        if not reading.total:
            raise Problem("csv_unreadable", "the file has a header and no row below it")
        body = {**_described(reading), "batch_id": None, "rows_to_mend": None}
        return idempotent.json_answer(OK, body)
    name = query.name or f"CSV of {reading.total} rows by API"
    batch_id = batching.create(rt, session, caller(), template, reading.rows, name=name)
    where = f"/v1/batches/{batch_id}"
    links = {"self": rt.url(where)}
    body = {**_described(reading), "batch_id": batch_id, "status": "running", "links": links}
    return idempotent.json_answer(ACCEPTED, body, {"Location": where})


def _how(query: UploadQuery) -> How:
    return How(mapping=query.map, date_format=query.date_format, most_rows=MOST_ROWS)


def _described(reading: Reading) -> dict[str, Any]:
    return {
        "encoding": reading.table.encoding,
        "delimiter": reading.table.delimiter,
        "columns": dict(reading.columns),
        "ignored_columns": reading.ignored_columns,
        "rows": reading.total,
        "ready": len(reading.rows),
        "to_mend": len(reading.bad_rows),
        "issued_before": reading.left_out,
        "errors": reading.error_count,
        "warnings": reading.warning_count,
        "findings": [one.as_wire() for one in reading.findings[:SHOWN_FINDINGS]],
    }


def _refused(reading: Reading) -> Problem:
    detail = (
        f"{reading.error_count:,} error(s) in {len(reading.bad_rows):,} of {reading.total:,} rows; nothing "
        "was issued. Mend them, or say skip_bad=true to issue the others; dry_run=true returns those to mend"
    )
    errors = [FieldError(_pointer(one), one.code, str(one)) for one in reading.errors]
    return Problem("validation_failed", detail, errors=errors)


def _pointer(one: RowFinding) -> str:
    if one.column is None:
        return f"#/rows/{one.row}"
    return f"#/rows/{one.row}/{one.column.replace('~', '~0').replace('/', '~1')}"


@contextmanager
def _body() -> Iterator[tuple[IO[bytes], str]]:
    """Yield the body as a file that can be read twice, and its SHA-256."""
    digest = hashlib.sha256()
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as content:
        while piece := request.stream.read(PIECE):
            digest.update(piece)
            content.write(piece)
        yield content, digest.hexdigest()
