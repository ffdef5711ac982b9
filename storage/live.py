"""A job as it looks right now: passed through Redis, for those who watch, and soon forgotten.

The ledger's progress is what counts; this is a courtesy that costs nothing while nobody looks.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from celery import Celery

from storage.broker import client

#: Seconds that a look is remembered by the job's worker, and that what it shows is kept.
LOOKED, SHOWN = 5, 15


@dataclass(frozen=True, kw_only=True)
class LiveView:
    """A running job's step and what its latent would show."""

    #: Index of the step of the chain.
    step: int
    #: Denoise steps.
    done: int
    total: int
    #: A small JPEG.
    preview: bytes | None


def look(app: Celery, job_id: str) -> LiveView | None:
    """What a job's worker showed last, if it runs; asks the worker to go on showing it.

    Raises BrokerUnavailable.
    """
    with client(app) as redis:
        redis.set(_looked(job_id), 1, ex=LOOKED)
        found = redis.get(_shown(job_id))
    if found is None:
        return None
    values: dict[str, Any] = json.loads(found)
    preview = values["preview"]
    return LiveView(**{**values, "preview": base64.b64decode(preview) if preview else None})


def looked_at(app: Celery, job_ids: Iterable[str]) -> set[str]:
    """Those of some jobs that somebody looks at. Raises BrokerUnavailable."""
    ids = list(job_ids)
    if not ids:
        return set()
    with client(app) as redis:
        marks = redis.mget([_looked(job_id) for job_id in ids])
    return {job_id for job_id, mark in zip(ids, marks, strict=True) if mark}


def show(app: Celery, views: Mapping[str, LiveView]) -> None:
    """Show jobs by their ids. Raises BrokerUnavailable."""
    with client(app) as redis:
        for job_id, view in views.items():
            preview = base64.b64encode(view.preview).decode() if view.preview else None
            redis.set(_shown(job_id), json.dumps({**asdict(view), "preview": preview}), ex=SHOWN)


def _looked(job_id: str) -> str:
    return f"latentmill-looked:{job_id}"


def _shown(job_id: str) -> str:
    return f"latentmill-shown:{job_id}"
