"""What happens when a schedule is due: its source is submitted as a batch.

A worker calls this in a process of its own: reading a dataset is the producer's trade, and may
take long.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from producer.client import Client
from producer.datasets.recipe import make_recipe
from producer.datasets.submit import Progress, read_rows, submit_dataset
from storage.errors import ClaimLost, LatentmillError, Unavailable
from storage.firings import LEASE
from storage.schedules import Firing, Schedules

#: Seconds until a firing that met with a service that was away is tried again, the first time.
RETRY = 30.0


def fire(client: Client, firing: Firing) -> Firing:
    """Submit what a claimed firing is to submit, and record what came of it.

    What an earlier batch has done is not done again, so a firing that was taken over goes on where
    the one before stopped. Raises ClaimLost when it has been taken over itself, and what went
    wrong otherwise, once that is recorded.
    """
    schedules = client.schedules
    try:
        with _renewing(schedules, firing) as lost:
            progress = _submit(client, firing, lost)
    except ClaimLost:
        raise
    except LatentmillError as error:
        retry_in = RETRY * 2.0 ** (firing.attempt - 1) if error.retryable else None
        schedules.fail(firing, code=error.code, message=str(error), retry_in=retry_in)
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        schedules.fail(firing, code="internal_error", message=message, retry_in=RETRY)
        raise
    outcomes = progress.outcomes
    return schedules.finish(
        firing, rows=progress.rows, jobs=outcomes["job"], refused=outcomes["failed"]
    )


def _submit(client: Client, firing: Firing, lost: "threading.Event") -> Progress:
    schedule = client.schedules.find(firing.schedule)
    recipe = make_recipe(schedule.recipe)
    last = Progress()

    def note(progress: Progress) -> None:
        nonlocal last
        last = progress
        if lost.is_set():
            raise ClaimLost(f"another worker fires schedule {firing.schedule}, or it was removed")

    # Nothing has come in: that is no mistake here.
    if next(read_rows(client, schedule.source, recipe), None) is not None:
        submit_dataset(client, schedule.source, recipe, name=firing.batch, on_progress=note)
    return last


@contextmanager
def _renewing(schedules: Schedules, firing: Firing) -> Iterator[threading.Event]:
    """Keep the lease; the event says that it was lost."""
    lost, ended = threading.Event(), threading.Event()

    def renew() -> None:
        while not ended.wait(LEASE / 6):
            try:
                schedules.renew(firing)
            except ClaimLost:
                lost.set()
                return
            except Unavailable:
                continue  # what is submitted meanwhile will say so itself

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()
