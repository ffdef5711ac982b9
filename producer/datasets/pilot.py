"""What the sample that runs first tells about the rest of a batch."""

from dataclasses import dataclass

from PIL import Image

from producer.client import Client
from producer.datasets.speed import pictures_a_second
from producer.grid import make_grid
from storage.batches import Batch, BatchRow, Status
from storage.jobs import Job

#: Pictures beside each other on a contact sheet, at least.
COLUMNS = 4


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the rows that wait will take, by the pilot's measure."""

    #: Pilot rows that succeeded.
    measured: int
    #: Rows that wait.
    held: int
    #: None: too few succeeded to tell.
    pictures_a_second: float | None
    seconds: float | None
    #: Of the results of the rows that wait, in S3.
    bytes: int | None


def pilot_rows(client: Client, batch: Batch) -> list[BatchRow]:
    """The rows of the sample; fewer than were asked for if some could not become jobs."""
    return client.batches.rows(batch.id, numbers=batch.pilot)


def estimate(client: Client, batch: Batch) -> Estimate:
    rows = [row for row in pilot_rows(client, batch) if row.artifact is not None]
    held = client.batches.counts(batch.id).statuses[Status.HELD]
    speed = pictures_a_second([_run(client.job(row.job_id or "").record) for row in rows])
    sizes = [client.objects.size(row.artifact) for row in rows if row.artifact]
    return Estimate(
        measured=len(rows),
        held=held,
        pictures_a_second=speed,
        seconds=held / speed if speed else None,
        bytes=round(sum(sizes) / len(sizes) * held) if sizes else None,
    )


def _run(job: Job) -> tuple[float, float]:
    """The seconds that a job's steps took on their devices, and when it ended."""
    seconds = sum(float(step.details.get("seconds", 0)) for step in job.steps)
    return seconds, job.finished_at or 0.0


def contact_sheet(client: Client, rows: list[BatchRow]) -> Image.Image | None:
    """The inputs and results of rows, each row's beside each other; None where there are none."""
    stories = [client.job(row.job_id).story() for row in rows if row.artifact and row.job_id]
    if not stories:
        return None
    longest = max(len(story) for story in stories)
    blank = Image.new("RGB", (1, 1), "white")
    shown = [
        each for story in stories for each in [*story, *[(blank, "")] * (longest - len(story))]
    ]
    columns = longest * max(1, COLUMNS // longest)
    return make_grid([picture for picture, _ in shown], [text for _, text in shown], columns)
