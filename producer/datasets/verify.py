"""Results run again, alone, and compared with what is stored."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image, ImageChops

from producer.client import Client
from producer.datasets.submit import sample
from producer.job import Job
from storage.batches import Batch, BatchRow, Status
from storage.broker import invite
from storage.errors import BrokerUnavailable, LatentmillError
from storage.models import find_model
from storage.spec import Img2Img, Spec


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A stored result beside one of the same spec that was made now."""

    row: BatchRow
    #: The job that made it again.
    job_id: str
    #: The largest difference of any sample of any pixel, of 255. None: there is nothing to compare.
    difference: int | None
    #: Why there is not.
    reason: str | None = None


def verify(client: Client, batch: Batch, size: int) -> Iterator[Comparison]:
    """Run rows that succeeded, spread over the batch, again: one after the other, each alone."""
    done = client.batches.counts(batch.id).statuses[Status.SUCCEEDED]
    numbers = set(sample(done, size))
    rows = client.batches.all_rows(batch.id, (Status.SUCCEEDED,))
    for index, row in enumerate(rows):
        if index in numbers and row.job_id is not None:
            yield _compare(client, batch, row, client.job(row.job_id))


def _compare(client: Client, batch: Batch, row: BatchRow, before: Job) -> Comparison:
    again = _run_again(client, batch, before)
    try:
        again.wait()
        pictures = before.image(), again.image()
    except LatentmillError as error:
        return Comparison(row=row, job_id=again.id, difference=None, reason=str(error))
    return Comparison(row=row, job_id=again.id, difference=difference(*pictures))


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of any sample of any pixel; 255 for pictures of different sizes."""
    if one.size != other.size:
        return 255
    lows_and_highs = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).getextrema()
    return max(int(high) for _, high in lows_and_highs)  # type: ignore[misc]


def _run_again(client: Client, batch: Batch, before: Job) -> Job:
    """A job of the same spec, from the same input, that nothing takes for the same."""
    asked = before.record.spec
    assert asked is not None, "a job that succeeded has a spec"
    first = asked.steps[0]
    kept = before.record.steps[0].details.get("input")
    if isinstance(first, Img2Img) and kept:
        first = first.model_copy(update={"image": kept})
    spec = Spec(
        steps=(first, *asked.steps[1:]),
        labels={"verify": batch.id},
        check_output=asked.check_output,
    )
    pool = find_model(client.models, first.model, client.settings).pool
    (entered,) = client.ledger.submit([spec], pool)
    with suppress(BrokerUnavailable):  # a worker will find it
        invite(client.broker, pool)
    return client.job(entered.id)
