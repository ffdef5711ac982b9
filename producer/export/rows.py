"""What is exported: the rows of a batch that have results, and all that is known about each."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from producer.client import Client
from producer.datasets.entry import INPUT_KEY
from producer.export.encoding import Encoding
from storage.batches import Batch, BatchRow, Status
from storage.errors import NotFound
from storage.jobs import Job
from storage.objects import Objects

#: Pictures that are fetched at the same time, and those that may wait for their turn.
THREADS, AHEAD = 16, 64
#: Rows whose results are there: one that was skipped has that of an equal row.
DONE = (Status.SUCCEEDED, Status.SKIPPED)
#: Fields of a step that stand in columns of their own, as they were used. The spec has all.
PARAMETERS = (
    "kind", "model", "prompt", "negative_prompt", "strength", "guidance_scale",
    "num_inference_steps", "seed", "prior_guidance_scale", "prior_num_inference_steps",
    "aesthetic_score", "negative_aesthetic_score",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A row with a result, and the job that made it."""

    row: BatchRow
    job: Job

    @property
    def name(self) -> str:
        return self.row.name or str(self.row.number)


@dataclass
class Outcome:
    """What came of an export."""

    written: int = 0
    #: Names of rows whose results are not in the bucket, though the ledger says so.
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Export:
    """A batch on its way out."""

    client: Client
    batch: Batch
    encoding: Encoding = field(default_factory=Encoding)
    shard_size: int = 1000
    #: Called after each row with a result.
    on_row: Callable[[], None] = lambda: None

    def rows(self, *statuses: Status) -> Iterator[tuple[BatchRow, Job | None]]:
        """Rows by number, with their jobs as far as they have any."""
        after = -1
        batches, ledger = self.client.batches, self.client.ledger
        while page := batches.rows(self.batch.id, statuses=statuses, after=after):
            jobs = ledger.jobs_by_id({row.job_id for row in page if row.job_id})
            yield from ((row, jobs.get(row.job_id or "")) for row in page)
            after = page[-1].number

    def items(self) -> Iterator[Item]:
        """The rows that have results."""
        return (Item(row, job) for row, job in self.rows(*DONE) if job is not None)

    def pictures(self, items: Iterable[Item]) -> Iterator[tuple[Item, bytes | None]]:
        """Items in their order, each with its file; None where the bucket has no such object."""

        def fetch(item: Item) -> tuple[Item, bytes | None]:
            found = _get(self.client.objects, item.row.artifact)
            return item, None if found is None else self.encoding.encode(found)

        for item, data in _in_order(fetch, items):
            self.on_row()
            yield item, data


def describe(row: BatchRow, job: Job | None) -> dict[str, Any]:
    """A row's columns: always the same ones, whatever is known."""
    spec = job.spec if job else None
    step = spec.steps[-1] if spec else None
    details = job.steps[-1].details if job and job.steps else {}
    first = job.steps[0].details if job and job.steps else {}
    key = first.get("input") or (getattr(spec.steps[0], "image", None) if spec else None)
    match = INPUT_KEY.fullmatch(key) if key else None
    used = details.get("options", {})
    return {
        "row": row.number,
        "place": row.place,
        "input_file": row.file,
        "input_sha256": match[1] if match else None,
        **{name: used.get(name, getattr(step, name, None)) for name in PARAMETERS},
        "seeds": [each.seed for each in spec.steps] if spec else [],
        "scheduler": details.get("scheduler"),
        "width": details.get("width"),
        "height": details.get("height"),
        "model_revision": details.get("model_revision"),
        "seconds": details.get("seconds"),
        "finished_at": _iso(row.finished_at),
        "job_id": row.job_id,
        "artifact": row.artifact,
        #: Lists and tables as JSON texts: each column has one type, whatever the source held.
        "cells": json.dumps(row.cells, ensure_ascii=False),
        "spec": spec.model_dump_json() if spec else None,
    }


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _get(objects: Objects, key: str | None) -> bytes | None:
    if key is None:
        return None
    try:
        return objects.get(key)
    except NotFound:
        return None


def _in_order(
    function: Callable[[Item], tuple[Item, bytes | None]], items: Iterable[Item]
) -> Iterator[tuple[Item, bytes | None]]:
    """The results in the order of the items, several being made at the same time."""
    waiting: deque[Future[tuple[Item, bytes | None]]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="export") as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
