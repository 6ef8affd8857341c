# SPDX-License-Identifier: Apache-2.0
"""Every error as a problem document (RFC 9457), or as a page for somebody with a browser.

No exception's text ever reaches a client: only codes and details of our own table, and the
request id that finds the trace in the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from flask import Flask, Response, redirect, render_template, request, url_for
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from conferral.domain.problems import PROBLEMS, FieldError, Problem, ProblemType
from conferral.reliable.errors import RunError
from conferral.web import site, value_words

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 2  # how soon to come back to a database that is away
MOST_ERRORS: Final = 100  # of one answer: a table of wrong rows is no answer
MOST_KEY: Final = 60  # characters of a name that somebody else chose
QUOTA_TYPES: Final = {
    "quota_exceeded": "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "temporary_reduced_capacity": (
        "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
    ),
}
_CODE_OF_STATUS: Final = {
    400: "request_invalid",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "media_type_unsupported",
    429: "quota_exceeded",
}
_CODE_OF_PYDANTIC: Final = {
    "missing": "field_required",
    "extra_forbidden": "field_unknown",
    "string_too_long": "field_too_long",
    "too_long": "field_too_long",
}
_API_PATHS: Final = ("/v1/", "/credentials/", "/tasks/", "/openapi.json", "/readyz", "/healthz")


class FieldErrorDocument(BaseModel):
    """One wrong value."""

    pointer: str
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """An error (RFC 9457); `code` is stable, the texts are for people."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    docs: str
    errors: list[FieldErrorDocument]


class Refusal(Exception):
    """A problem with headers, members or a status of its own."""

    def __init__(
        self,
        problem: Problem,
        *,
        headers: Mapping[str, str],
        members: Mapping[str, Any] | None = None,
        status: int | None = None,
    ) -> None:
        self.problem = problem
        self.status = status
        self.headers = dict(headers)
        self.members = dict(members or {})
        super().__init__(problem.code)


def install(app: Flask) -> None:
    """Answer every error of this application here."""
    app.register_error_handler(Problem, answer)
    app.register_error_handler(Refusal, _refusal)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(RunError, _run_error)
    app.register_error_handler(Exception, _unexpected)


def invalid(error: ValidationError) -> Response:
    """Raise what pydantic found, without a word of the input; flask-openapi3 calls this."""
    is_query = error.title.endswith("Query")
    errors = [
        FieldError(
            _pointer(found["loc"], is_query=is_query),
            _CODE_OF_PYDANTIC.get(found["type"], "field_invalid"),
            value_words.said(found),
        )
        for found in error.errors(include_url=False, include_input=False)
    ]
    raise Problem("validation_failed", f"{len(errors)} value(s) are not valid", errors=errors)


def answer(
    problem: Problem,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
    *,
    status: int | None = None,
) -> AnyResponse:
    """Return a problem as a document, or as a page where a person looks at it."""
    status = status or problem.type.status or 500
    if wants_page():
        if problem.code == "session_expired":
            return redirect(url_for("console.login", next=request.full_path.rstrip("?")))
        page = render_template("problem.html", problem=problem, status=status)
        response = Response(page, status=status, mimetype="text/html")
    else:
        body = {**_members(problem, status), **(members or {})}
        response = Response(json.dumps(body), status=status, mimetype=MEDIA_TYPE)
    response.headers.update({**_headers(problem), **(headers or {})})
    return response


def wants_page() -> bool:
    """Return whether the client is somebody with a browser, on a path that has pages."""
    if request.path.startswith(_API_PATHS):
        return False
    accepted = request.accept_mimetypes
    return accepted.best_match([MEDIA_TYPE, "application/json", "text/html"]) == "text/html"


def type_url(kind: ProblemType) -> str:
    """Return the address that names a kind of problem, and explains it to whoever opens it."""
    return QUOTA_TYPES.get(kind.code) or site.runtime().url(f"/problems/{kind.code}")


def _members(problem: Problem, status: int) -> dict[str, Any]:
    kind = problem.type
    return {
        "type": type_url(kind),
        "title": kind.title,
        "status": status,
        "detail": problem.detail,
        "instance": request.path,
        "code": kind.code,
        "request_id": site.request_id(),
        "retryable": kind.retryable,
        "docs": site.runtime().url(f"/problems/{kind.code}"),
        "errors": [
            {"pointer": error.pointer, "code": error.code, "detail": error.detail}
            for error in problem.errors[:MOST_ERRORS]
        ],
    }


def _headers(problem: Problem) -> dict[str, str]:
    if problem.type.status == 401:  # noqa: PLR2004 - RFC 9110 asks for the header with this status
        return {"WWW-Authenticate": 'Bearer realm="conferral"'}
    if problem.code in ("database_unavailable", "idempotency_in_progress", "temporary_reduced_capacity"):
        return {"Retry-After": str(RETRY_SECONDS)}
    return {}


def _refusal(refusal: Refusal) -> AnyResponse:
    return answer(refusal.problem, refusal.headers, refusal.members, status=refusal.status)


def _http(error: HTTPException) -> AnyResponse | HTTPException:
    """Answer what Flask and Werkzeug refuse; redirects and ready responses pass."""
    status = error.code or 500
    if error.response is not None or status < 400:  # noqa: PLR2004 - a redirect is an exception, too
        return error
    code = _CODE_OF_STATUS.get(status, "request_invalid" if status < 500 else "internal")  # noqa: PLR2004
    headers = {name: value for name, value in error.get_headers() if name.lower() in ("allow", "retry-after")}
    return answer(Problem(code, _DETAILS.get(code, PROBLEMS[code].cure)), headers)


_DETAILS: Final = {
    "request_invalid": "the request is malformed, or it names a host that is not ours",
    "not_found": "there is nothing at this address",
    "method_not_allowed": "this address does not take this method",
    "body_too_large": "the body is larger than this address takes",
}


def _run_error(error: RunError) -> AnyResponse:
    """Answer a taxonomy error of an adapter by its code where clients know it."""
    kind = PROBLEMS.get(error.code)
    if kind is None or not kind.status:
        log.error("request_failed", extra={"code": error.code})
        return answer(Problem("internal", "something failed here; quote the request id if it stays"))
    return answer(Problem(error.code, kind.cure))


def _unexpected(error: Exception) -> AnyResponse:
    if isinstance(error, PoolTimeoutError | OperationalError | InterfaceError):
        return _database(error)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return _database(error)
    log.error("request_raised", exc_info=error, extra={"code": "internal"})
    return answer(Problem("internal", "something failed here; quote the request id if it stays"))


# By SQLite's name of the error or PostgreSQL's SQLSTATE. A disk without room shows itself first where SQLite
# cannot make the files beside the database.
_DATABASE_CODES: Final = (
    ("SQLITE_FULL", "storage_full"),
    ("SQLITE_IOERR_SHM", "storage_full"),
    ("SQLITE_IOERR_WRITE", "storage_full"),
    ("SQLITE_READONLY", "read_only"),
    ("53100", "storage_full"),
    ("25006", "read_only"),
)


def _database(error: Exception) -> AnyResponse:
    """Answer a database that is away, full or read-only; nothing was changed."""
    cause = getattr(error, "orig", None)
    name = str(getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or "")
    code = next((code for begins, code in _DATABASE_CODES if name.startswith(begins)), "database_unavailable")
    log.error("database_failed", extra={"code": code, "kind": type(error).__name__})
    return answer(
        Problem(code, "nothing was changed; repeat the request"), {"Retry-After": str(RETRY_SECONDS)}
    )


def _pointer(location: tuple[int | str, ...], *, is_query: bool) -> str:
    parts = [str(part)[:MOST_KEY].replace("~", "~0").replace("/", "~1") for part in location]
    return f"?{'.'.join(parts)}" if is_query else "#" + "".join(f"/{part}" for part in parts)
