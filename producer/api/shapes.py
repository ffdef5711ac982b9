"""The shapes of answers, for the API's description."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.jobs import State

ID = "01k9zt3v8m4w2q6n7r5s1x0yab"
_PLACE = f"http://127.0.0.1:8420/v1/jobs/{ID}"


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Accepted(_Shape):
    """A job is in the ledger."""

    id: str = Field(examples=[ID])
    created: bool = Field(description="false: its key had made it before.")
    status_url: str = Field(examples=[_PLACE])
    result_url: str = Field(examples=[f"{_PLACE}/result"])
    cancel_url: str = Field(examples=[_PLACE], description="For DELETE.")
    events_url: str = Field(examples=[f"{_PLACE}/events"])


class ProgressShape(_Shape):
    step: int = Field(description="Index of the step that runs now, or comes next.")
    steps: int | None
    done: int = Field(description="Denoise steps that this step has done.")
    total: int = Field(description="0: not known yet.")


class AttemptShape(_Shape):
    number: int
    worker: str
    started_at: str | None
    ended_at: str | None
    error_code: str | None
    error: str | None


class JobShape(_Shape):
    """All that is known about a job. Times are ISO 8601, UTC."""

    id: str = Field(examples=[ID])
    state: State
    error_code: str | None = Field(examples=["invalid_image"])
    error: str | None
    warnings: list[str]
    artifact: str | None = Field(examples=[f"jobs/{ID}/result.png"])
    attempt: int
    max_attempts: int
    priority: int
    pool: str
    batch: str | None
    owner: str
    worker: str | None
    progress: ProgressShape
    cancel_requested: bool
    run_at: str | None
    deadline: str | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    spec: dict[str, Any] | None
    unreadable: str | None = Field(description="Why this version cannot read the spec.")
    steps: list[dict[str, Any]] = Field(description="Finished steps: index, artifact, seconds …")
    attempts: list[AttemptShape]


class JobPage(_Shape):
    jobs: list[JobShape]
    next_cursor: str | None = Field(description="None: there are no more.")


class Counts(_Shape):
    queued: int
    running: int
    succeeded: int
    failed: int
    canceled: int


class CancelOutcome(_Shape):
    id: str = Field(examples=[ID])
    outcome: Literal["canceled", "leaving", "ended"] = Field(
        description="At once; at its next step boundary; or not at all, since it had ended."
    )
    state: State


class ModelShape(BaseModel):
    """What jobs may name as `model`."""

    alias: str = Field(examples=["demo"])
    pool: str
    scheduler: str | dict[str, Any] | None
    num_inference_steps: int | None
    guidance_scale: float | None
    strength: float | None
    min_side: int | None
    max_side: int | None
    max_pixels: int | None


class Models(_Shape):
    models: list[ModelShape]


class Health(_Shape):
    status: Literal["ok"]


class Readiness(_Shape):
    ready: bool
    ledger: str = Field(examples=["ok"])
    broker: str = Field(examples=["ok"])
    objects: str = Field(examples=["ok"])
    workers: int
