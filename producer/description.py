"""A job as JSON: the same on the command line and over HTTP."""

from datetime import UTC, datetime
from typing import Any

from storage.jobs import Job
from storage.spec import Spec
from storage.web import shown


def when(seconds: float | None) -> str | None:
    """A time of the ledger as ISO 8601, UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def describe(record: Job) -> dict[str, Any]:
    """All that is known about a job, under stable names; secrets in URLs are left out."""
    return {
        "id": record.id,
        "state": record.state,
        "error_code": record.error_code,
        "error": record.error,
        "warnings": [text for step in record.steps for text in step.details.get("warnings", [])],
        "artifact": record.artifact,
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "priority": record.priority,
        "pool": record.pool,
        "batch": record.batch,
        "owner": record.owner,
        "worker": record.worker,
        "progress": {
            "step": record.step,
            "steps": len(record.spec.steps) if record.spec else None,
            "done": record.progress_done,
            "total": record.progress_total,
        },
        "cancel_requested": record.cancel_requested,
        "run_at": when(record.run_at),
        "deadline": when(record.deadline),
        "created_at": when(record.created_at),
        "started_at": when(record.started_at),
        "finished_at": when(record.finished_at),
        "spec": _asked(record.spec) if record.spec else None,
        "unreadable": record.unreadable,
        "steps": [
            {
                "index": step.index,
                "artifact": step.artifact,
                "carry_kind": step.carry_kind,
                "finished_at": when(step.finished_at),
                **step.details,
            }
            for step in record.steps
        ],
        "attempts": [
            {
                "number": attempt.number,
                "worker": attempt.worker,
                "started_at": when(attempt.started_at),
                "ended_at": when(attempt.ended_at),
                "error_code": attempt.error_code,
                "error": attempt.error,
            }
            for attempt in record.attempts
        ],
    }


def _asked(spec: Spec) -> dict[str, Any]:
    asked = spec.model_dump(mode="json")
    if asked["webhook_url"] is not None:
        asked["webhook_url"] = _masked(asked["webhook_url"])
    for step in asked["steps"]:
        if "://" in (step.get("image") or ""):
            step["image"] = _masked(step["image"])
    return asked


def _masked(url: str) -> str:
    """What follows a question mark may be a signature."""
    plain = shown(url)
    return f"{plain}?…" if "?" in url else plain
