"""The account of a batch: what has become of every row, and whether its result is really there."""

import itertools
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from producer.client import Client
from producer.datasets.entry import INPUT_KEY
from producer.datasets.lines import write_lines
from storage.batches import Batch, BatchRow, Counts, Result, Status
from storage.objects import Listed, Objects, result_key

#: Objects of a listing that are passed over before the next one is asked for by its name.
PASSED_OVER = 1000
#: Missing results that are named.
NAMED = 100


@dataclass(frozen=True, kw_only=True)
class Account:
    """A batch's rows, each counted once."""

    counts: Counts
    #: For each code of failed rows, the first that has it.
    first_failed: list[BatchRow]
    #: Rows whose results are not in the bucket though their jobs succeeded.
    missing: int
    #: Some of these results.
    missing_keys: list[str] = field(default_factory=list)
    #: Rows that the source had and the ledger has not; None: the submission did not end.
    absent: int | None

    @property
    def unaccounted(self) -> int:
        return self.missing + self.counts.statuses[Status.LOST] + (self.absent or 0)

    @property
    def is_complete(self) -> bool:
        return self.absent is not None and not self.unaccounted


def make_account(client: Client, batch: Batch) -> Account:
    """Count every row, and look for every result in the bucket."""
    counts = client.batches.counts(batch.id)
    missing, keys = 0, list[str]()
    # Beside each other: the results that there should be, and whether they are there.
    results, wanted = itertools.tee(client.batches.results(batch.id))
    there = _are_there(client.objects, map(_key, wanted))
    for result, is_there in zip(results, there, strict=True):
        if not is_there:
            missing += result.rows
            keys += [_key(result)][: NAMED - len(keys)]
    firsts = [
        client.batches.rows(batch.id, statuses=(Status.FAILED,), code=code, limit=1)
        for code in sorted(counts.codes)
    ]
    return Account(
        counts=counts,
        first_failed=[row for page in firsts for row in page],
        missing=missing,
        missing_keys=keys,
        absent=None if batch.total is None else batch.total - counts.rows,
    )


def write_retry(client: Client, batch: Batch, file: Path) -> int:
    """Write the rows that failed or were canceled as a source of their own; says how many.

    Rows that could not be read are not among them.
    """
    return write_lines(file, _again(client, batch))


def _again(client: Client, batch: Batch) -> Iterator[dict[str, Any]]:
    entry = None
    for row in client.batches.all_rows(batch.id, (Status.FAILED, Status.CANCELED, Status.LOST)):
        # An entry's variants follow each other, and come back together.
        if row.entry is not None and row.entry != entry:
            entry = row.entry
            yield _as_source(client, batch, row)


def _as_source(client: Client, batch: Batch, row: BatchRow) -> dict[str, Any]:
    """A row as a line that names its picture from anywhere."""
    image = row.file
    if image is not None and "://" not in image and not INPUT_KEY.fullmatch(image):
        image = _beside(batch.source, image)
        if "://" not in image and not Path(image).is_file() and row.job_id:
            # It came with its table or tar; the bucket has it.
            spec = client.job(row.job_id).record.spec
            image = (getattr(spec.steps[0], "image", None) if spec else None) or image
    return {"image": image, **row.cells} if image else row.cells


def _beside(source: str, file: str) -> str:
    """Where a file of a source is."""
    ending = posixpath.splitext(source)[1].lower()
    is_file = ending in (".csv", ".jsonl", ".parquet", ".tar")
    folder = posixpath.dirname(source) if is_file else source.rstrip("/")
    return posixpath.normpath(f"{folder}/{file}") if "://" not in source else f"{folder}/{file}"


def _key(result: Result) -> str:
    return result.artifact or result_key(result.job_id, 0, 1)


def _are_there(objects: Objects, keys: Iterable[str]) -> Iterator[bool]:
    """Whether each of the keys, given in their order, has an object that is not empty.

    Walks the bucket's listing beside them: one request for a thousand results of one batch.
    """
    listing: Iterator[Listed] = iter(())
    item: Listed | None = None
    for key in keys:
        passed = 0
        while item is None or item.key < key:
            if item is None or passed >= PASSED_OVER:
                folder = posixpath.dirname(key)
                listing, passed = objects.listed("jobs/", after=f"{folder}/"), 0
            item = next(listing, Listed("\U0010ffff", 0, ""))
            passed += 1
        yield item.key == key and item.size > 0
