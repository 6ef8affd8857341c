# SPDX-License-Identifier: Apache-2.0
"""What answers hold, for the API's description; a test holds every answer against it.

Handlers build plain objects (`wire`): a model between row and JSON would only copy them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, Field, RootModel

from conferral.domain.credential import STATES
from conferral.web.api.models import Recipient, Strict

Json = Any
State = Literal[STATES]  # type: ignore[valid-type]  # the tuple is the list of words
RunState = Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"]


class RunError(Strict):
    """What went wrong: a stable code, and words."""

    code: str
    message: str


class AcceptedOut(Strict):
    """A credential that will be issued, or was created only (`task_id` is null)."""

    task_id: str | None
    status: State
    credential_id: str
    links: dict[str, str | None]


class TaskOut(Strict):
    """The status of a task; a waiting run reads STARTED with `waiting_for`."""

    task_id: str
    task: str
    state: RunState
    waiting_for: str | None
    result: Json
    error: RunError | None
    retry_count: int = Field(description="attempts that ended in another try")
    snooze_count: int = Field(description="how often it was put off before it could begin")
    next_retry_at: AwareDatetime | None
    possible_duplicate: bool
    credential_id: str | None
    queued_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class AttemptOut(Strict):
    """One attempt of a run, with what proves it."""

    number: int
    outcome: Literal["success", "retry", "snoozed", "failure", "ambiguous", "lost", "fenced"]
    started_at: AwareDatetime | None
    finished_at: AwareDatetime
    error: RunError | None
    evidence: Json


class TimelineRun(TaskOut):
    """A run with its attempts."""

    attempts: list[AttemptOut]


class TimelineOut(Strict):
    """Everything that was done for a credential, in time order."""

    data: list[TimelineRun]


class CredentialOut(Strict):
    """A credential."""

    id: str
    state: State
    expired: bool
    livemode: bool
    external_id: str | None
    template_id: str
    template: str
    batch_id: str | None
    recipient: Recipient
    fields: dict[str, str]
    issued_on: str
    expires_on: str | None
    task_id: str | None
    error: RunError | None
    created_at: AwareDatetime
    issued_at: AwareDatetime | None
    status_reason: str | None = Field(description="why it is not in force: a code")
    status_changed_at: AwareDatetime | None
    supersedes: str | None = Field(description="the credential that this one corrects")
    superseded_by: str | None
    links: dict[str, str | None]


class ChangedOut(Strict):
    """How a credential stands now, and the tasks that tell of it."""

    credential_id: str
    status: State
    reason: str | None
    changed_at: AwareDatetime
    task_ids: list[str]
    links: dict[str, str]


class SupersedingOut(AcceptedOut):
    """A corrected credential that will be issued, and the one that ends then."""

    supersedes: str


class BatchPreviewOut(Strict):
    """How many credentials of a batch would change, and the states of the others."""

    batch_id: str
    affected: int
    others: dict[str, int]


class BatchChangedOut(BatchPreviewOut):
    """How many will change; `task_id` is null when there are none."""

    task_id: str | None


class Page(Strict):
    """One page of a list."""

    next_cursor: str | None
    has_more: bool


class CredentialPage(Page):
    """Credentials, newest first."""

    data: list[CredentialOut]


class BatchAcceptedOut(Strict):
    """A batch that will be issued."""

    batch_id: str
    status: str
    links: dict[str, str]


class BatchOut(Strict):
    """A batch with its counts: absolute, so a lost look is harmless."""

    batch_id: str
    name: str
    status: Literal["validating", "ready", "running", "paused", "completed", "cancelled"]
    total: int
    credentials: dict[str, int]
    not_created: int = Field(description="rows that are not a credential yet")
    tasks: dict[str, dict[str, int]]
    created_at: AwareDatetime


class BatchPage(Page):
    """Batches, newest first."""

    data: list[BatchOut]


class EndpointOut(Strict):
    """A webhook endpoint."""

    id: str
    url: str
    event_types: list[str]
    state: Literal["enabled", "disabled"]
    temporary: bool
    livemode: bool
    failures: int
    paused_until: AwareDatetime | None
    last_success_at: AwareDatetime | None
    created_at: AwareDatetime


class NewEndpointOut(EndpointOut):
    """An endpoint that was just added: its secret is shown this once."""

    secret: str | None


class EndpointPage(Page):
    """Webhook endpoints, oldest first."""

    data: list[EndpointOut]


class EventOut(Strict):
    """An event, as endpoints get it, with its id and when it was made."""

    id: str
    created_at: AwareDatetime
    type: str
    timestamp: AwareDatetime
    data: dict[str, Json]


class EventPage(Page):
    """Events, oldest first; keep `next_cursor` and ask again with it."""

    data: list[EventOut]


class MessageOut(Strict):
    """A captured message."""

    id: str
    message_id: str
    recipient: str
    subject: str
    kind: str
    credential_id: str | None
    received_at: AwareDatetime


class MessageSourceOut(MessageOut):
    """A captured message with its source."""

    source: str


class MessagePage(Page):
    """Captured messages, newest first."""

    data: list[MessageOut]


class QueueOut(Strict):
    """What one queue has to do."""

    queue: str
    due: int
    oldest_due_at: AwareDatetime | None
    scheduled: int
    in_redis: int
    working: int
    dead: int
    slots: int
    paused: bool


class LeaderOut(Strict):
    """Who leads, and whether the lease still holds."""

    name: str
    holder: str | None
    epoch: int
    until: AwareDatetime | None
    held: bool


class QueuesOut(Strict):
    """All queues, and who leads."""

    data: list[QueueOut]
    leaders: list[LeaderOut]


class WorkerOut(Strict):
    """A worker process that is alive."""

    node: str
    pool: str
    queues: list[str]
    slots: int
    host: str
    pid: int
    started_at: AwareDatetime
    seen_at: AwareDatetime


class WorkersOut(Strict):
    """All worker processes that are alive."""

    data: list[WorkerOut]


class ScheduleOut(Strict):
    """A schedule, and when it fired last."""

    name: str
    task: str
    schedule: str
    last_fired_at: AwareDatetime | None


class SchedulesOut(Strict):
    """All schedules, and who fires them."""

    data: list[ScheduleOut]
    leader: LeaderOut


class CauseOut(Strict):
    """How many dead letters have one cause."""

    task: str
    code: str
    title: str
    count: int


class DeadLetterOut(Strict):
    """A run that ended as a failure."""

    task_id: str
    task: str
    subject: str | None
    error: RunError
    attempts: int
    failed_at: AwareDatetime | None


class DeadLettersOut(Strict):
    """Dead letters, oldest first, and their causes."""

    data: list[DeadLetterOut]
    causes: list[CauseOut]


class PreviewOut(Strict):
    """What would be touched."""

    count: int
    causes: list[CauseOut]


class ReplayedOut(Strict):
    """What is due again."""

    replayed: int
    task_ids: list[str]


class DiscardedOut(Strict):
    """What was given up."""

    discarded: int
    task_ids: list[str]


class ReplayOut(RootModel[ReplayedOut | PreviewOut]):
    """What is due again, or with `preview` what would be."""


class DiscardOut(RootModel[DiscardedOut | PreviewOut]):
    """What was given up, or with `preview` what would be."""


class SigningKeyOut(Strict):
    """The public half of a signing key, and what became of it."""

    id: str
    number: int
    verification_method: str
    public_key_multibase: str
    state: Literal["current", "retired", "withdrawn"]
    created_at: AwareDatetime
    retired_at: AwareDatetime | None
    withdrawn_at: AwareDatetime | None
    compromised_at: AwareDatetime | None


class SigningKeysOut(Strict):
    """Every key of an issuer, oldest first."""

    data: list[SigningKeyOut]


class KeyChangeOut(Strict):
    """A change of keys that a worker will make; `key` is the one it replaces, as it is now."""

    task_id: str
    status: Literal["queued"]
    key: SigningKeyOut
    links: dict[str, str]
