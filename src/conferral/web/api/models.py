# SPDX-License-Identifier: Apache-2.0
"""What requests may hold. Unknown members are refused: a misspelt one would be lost in silence.

Only shapes and sizes are checked here; what a value means is checked by `services.admission`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from conferral.domain.credential import STATES
from conferral.domain.status_change import REASONS, UNSPECIFIED
from conferral.web.cursors import DEFAULT_LIMIT, MOST_CHARACTERS, MOST_LIMIT
from conferral.web.problems import MEDIA_TYPE, ProblemDocument

SECURITY: Final[list[dict[str, list[str]]]] = [{"api_key": []}]
# Longer than anything a design or a standard takes; admission says the exact limit.
MOST_TEXT: Final = 2_000
MOST_FIELDS: Final = 50
MOST_ROWS: Final = 10_000  # beyond it validation is work for a run, not for a request

_NO_NUL: Final = r"^[^\x00]*$"  # PostgreSQL's text has none
Text = Annotated[str, Field(max_length=MOST_TEXT)]
Name = Annotated[str, Field(min_length=1, max_length=120, pattern=_NO_NUL)]
Day = Annotated[str, Field(max_length=40, examples=["2026-06-30"], description="YYYY-MM-DD")]


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


PROBLEM_RESPONSES: Final[dict[Any, Any]] = {
    401: _problem("No key, or one that is not valid"),
    403: _problem("The key lacks a scope"),
    422: _problem("Some values are not valid"),
    429: _problem("Too many requests"),
    503: _problem("The database does not answer"),
}
NOT_FOUND: Final[dict[Any, Any]] = {404: _problem("There is no such thing")}
CONFLICT: Final[dict[Any, Any]] = {409: _problem("Its state does not allow that")}
ERASED: Final[dict[Any, Any]] = {410: _problem("It was erased at the person's request")}
PURGED: Final[dict[Any, Any]] = {410: _problem("The run is no longer kept")}


def file_of(media_type: str) -> dict[str, Any]:
    """Return the description of an answer that is a file."""
    schema = {"type": "string", "format": "binary"}
    return {"description": "The file", "content": {media_type: {"schema": schema}}}


class Strict(BaseModel):
    """A model that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")


class Recipient(Strict):
    """The person a credential is for, and mailed to."""

    name: Text
    email: Text
    locale: Annotated[str, Field(max_length=20, examples=["en", "es", "fr", "ar"])] = "en"


class InlineCredential(Strict):
    """A credential as it is asked for."""

    template_id: Annotated[Name, Field(description="A template's id or name", examples=["diploma"])]
    recipient: Recipient
    fields: Annotated[dict[str, Text], Field(max_length=MOST_FIELDS)] = {}
    issued_on: Day | None = None
    expires_on: Day | None = None
    external_id: Text | None = None
    send_email: bool = True


class CredentialBody(InlineCredential):
    """A credential to create; `issue: false` creates it without issuing."""

    issue: bool = True


class IssueBody(Strict):
    """A credential to issue: `credential_id` of one that exists, or everything of a new one."""

    credential_id: Name | None = None
    template_id: (
        Annotated[Name, Field(description="A template's id or name", examples=["diploma"])] | None
    ) = None
    recipient: Recipient | None = None
    fields: Annotated[dict[str, Text], Field(max_length=MOST_FIELDS)] = {}
    issued_on: Day | None = None
    expires_on: Day | None = None
    external_id: Text | None = None
    send_email: bool = True


class ReasonBody(Strict):
    """Why a credential is withdrawn or paused: a code, never a sentence."""

    reason: Literal[REASONS] = UNSPECIFIED  # type: ignore[valid-type]  # the tuple is the list of words


class ReinstateBody(Strict):
    """Nothing is to be said: `{}`."""


class CorrectedRecipient(Strict):
    """What is to be corrected of the person."""

    name: Text | None = None
    email: Text | None = None
    locale: Annotated[str, Field(max_length=20)] | None = None


class Correction(Strict):
    """What the corrected credential says differently; what is left out stays."""

    recipient: CorrectedRecipient | None = None
    fields: Annotated[
        dict[str, Text], Field(max_length=MOST_FIELDS, description="replaced one by one; empty removes it")
    ] = {}
    issued_on: Day | None = None
    expires_on: Annotated[str, Field(max_length=40, description="YYYY-MM-DD; empty removes it")] | None = None
    external_id: Annotated[
        Text | None, Field(description="of the corrected one: the old one keeps its own")
    ] = None
    template_id: Annotated[Name, Field(description="another template's id or name")] | None = None


class SupersedeBody(Strict):
    """How the credential is to be corrected."""

    changes: Correction


class BatchRow(Strict):
    """One row of a batch."""

    recipient: Recipient
    fields: Annotated[dict[str, Text], Field(max_length=MOST_FIELDS)] = {}
    issued_on: Day | None = None
    expires_on: Day | None = None
    external_id: Text | None = None


class BatchBody(Strict):
    """Many credentials of one template."""

    template_id: Annotated[Name, Field(description="A template's id or name", examples=["diploma"])]
    name: Annotated[str, Field(max_length=200, pattern=_NO_NUL)] = ""
    rows: Annotated[list[BatchRow], Field(min_length=1, max_length=MOST_ROWS)]


class EndpointBody(Strict):
    """A webhook endpoint."""

    url: Annotated[str, Field(min_length=1, max_length=500, examples=["https://hooks.example.org/conferral"])]
    event_types: Annotated[list[Name], Field(max_length=30)] = []
    temporary: bool = False


class DeadLetterFilter(Strict):
    """Which dead letters are meant; everything given must match."""

    task: Name | None = None
    code: Name | None = None
    task_ids: Annotated[list[Name], Field(max_length=100)] | None = None


class ReplayBody(Strict):
    """Dead letters to make due again; `preview` counts and changes nothing."""

    filter: DeadLetterFilter = DeadLetterFilter()
    preview: bool = False


class DiscardBody(Strict):
    """Dead letters to give up for good; `preview` counts and changes nothing."""

    filter: DeadLetterFilter
    preview: bool = False


class WithdrawBody(Strict):
    """A signing key that somebody else may have had."""

    compromised_at: Annotated[
        str,
        Field(
            max_length=40,
            examples=["2026-06-30", "2026-06-30T14:00:00Z"],
            description="since when: YYYY-MM-DD, or an RFC 3339 time with its zone",
        ),
    ]


class SigningKeyPath(BaseModel):
    """The address of a signing key within its issuer."""

    number: str


class CredentialPath(BaseModel):
    """The address of a credential."""

    credential_id: str


class TaskPath(BaseModel):
    """The address of a run."""

    task_id: str


class BatchPath(BaseModel):
    """The address of a batch."""

    batch_id: str


class EndpointPath(BaseModel):
    """The address of a webhook endpoint."""

    endpoint_id: str


class MessagePath(BaseModel):
    """The address of a captured message."""

    message_id: str


class WaitQuery(Strict):
    """How long the answer may wait for the run's end."""

    wait: Annotated[float, Field(ge=0, le=25, description="seconds; 0 answers at once")] = 0


class PageQuery(Strict):
    """Which page of a list."""

    cursor: Annotated[str, Field(max_length=MOST_CHARACTERS)] | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_LIMIT)] = DEFAULT_LIMIT


class CredentialsQuery(PageQuery):
    """Which credentials of which page."""

    state: Literal[STATES] | None = None  # type: ignore[valid-type]  # the tuple is the list of words
    task_state: Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"] | None = None
    error_code: Name | None = None
    batch_id: Name | None = None
    external_id: Name | None = None
    q: Name | None = None
    updated_since: AwareDatetime | None = None


class EventsQuery(PageQuery):
    """Which events: oldest first, so that a reader can follow."""

    since: AwareDatetime | None = None


Moment = datetime
