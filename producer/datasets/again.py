"""Running a batch's rows again."""

from producer.client import Client
from storage.batches import Status
from storage.jobs import Selection

#: Ids given to `retry` together.
_PAGE = 500


def retry_batch(client: Client, batch_id: str, code: str | None = None) -> int:
    """Queue a batch's failed and canceled jobs again; says how many.

    Rows that never became jobs stay as they are.
    """
    queued = len(client.ledger.retry(Selection(batch=batch_id, error_code=code)))
    # What is left are jobs that other batches made.
    ended = client.batches.all_rows(batch_id, (Status.FAILED, Status.CANCELED))
    ids = {row.job_id for row in ended if row.job_id and code in (None, row.code)}
    rest = sorted(ids)
    for first in range(0, len(rest), _PAGE):
        some = tuple(rest[first : first + _PAGE])
        queued += len(client.ledger.retry(Selection(ids=some, error_code=code)))
    return queued
