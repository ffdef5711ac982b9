"""What the ledger tells about jobs and workers, as frozen values.

Times are seconds since the epoch by the database's clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from storage.spec import Spec

CarryKind = Literal["latent", "image"]


class State(StrEnum):
    QUEUED = "queued"  #: waits for a worker, or for its time
    RUNNING = "running"  #: a worker owns it until its lease ends
    SUCCEEDED = "succeeded"  #: every step's result is stored
    FAILED = "failed"  #: for good; `error_code` says why
    CANCELED = "canceled"  #: somebody no longer wanted it


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A finished step: what it stored, and what it hands to the next."""

    index: int
    #: Key of the step's picture, if it was kept.
    artifact: str | None = None
    #: Key of what the next step begins from.
    carry: str | None = None
    carry_kind: CarryKind | None = None
    #: JSON: timings, warnings, the VAE's fingerprint …
    details: dict[str, Any] = field(default_factory=dict)
    #: Set by the ledger.
    finished_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One worker's go at a job."""

    number: int
    worker: str
    started_at: float
    ended_at: float | None = None
    error_code: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One spec's life, as it stood when it was read."""

    id: str
    state: State
    #: None: this version cannot read it, and `unreadable` says why.
    spec: Spec | None
    unreadable: str | None
    batch: str | None
    #: Whose API key asked for it; empty for whoever reached the ledger itself.
    owner: str
    pool: str
    priority: int
    #: Times that a worker took it; `charged` of them count against `max_attempts`.
    attempt: int
    charged: int
    max_attempts: int
    worker: str | None
    lease_until: float | None
    run_at: float
    deadline: float | None
    #: It runs, and will be canceled at its next step boundary.
    cancel_requested: bool
    #: Index of the step that runs now; steps before it are finished.
    step: int
    progress_done: int
    progress_total: int
    error_code: str | None
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    steps: tuple[StepRecord, ...]
    attempts: tuple[Attempt, ...]

    @property
    def artifact(self) -> str | None:
        """Key of the picture of the chain's last step, once that step has finished."""
        if self.spec is None or len(self.steps) < len(self.spec.steps):
            return None
        return self.steps[-1].artifact


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One job that somebody asks for by itself."""

    spec: Spec
    pool: str
    owner: str


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job's id, and whether this submission made it or its key had done so before."""

    id: str
    created: bool


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Some jobs: those that all of what is given fits."""

    #: Ids, or beginnings of them.
    ids: tuple[str, ...] = ()
    label: tuple[str, str] | None = None
    batch: str | None = None
    error_code: str | None = None
    #: None: anybody's.
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """What canceling a job came to."""

    id: str
    #: At once; at its next step boundary; or not at all, since it had ended.
    outcome: Literal["canceled", "leaving", "ended"]
    #: The job's, now.
    state: State


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker's ownership of a job: what every write about it has to show."""

    job_id: str
    #: Fencing token: no two claims of a job have the same.
    attempt: int
    worker: str
    spec: Spec
    #: Steps that earlier attempts finished, in order.
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker process as it reported itself; the ledger sets `seen_at`."""

    name: str
    device: str
    pool: str
    slots: int
    #: Names of the models on its device.
    loaded: tuple[str, ...]
    started_at: float
    seen_at: float = 0.0
    #: What it did since it began, as JSON: see worker.meter.
    figures: dict[str, Any] = field(default_factory=dict)
