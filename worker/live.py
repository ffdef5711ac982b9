"""Showing running jobs to those who look at them."""

import io

from celery import Celery

from storage.live import LiveView, looked_at, show
from worker.runner import Running

#: Seconds between two looks.
EVERY = 0.3


def show_running(app: Celery, running: list[Running]) -> None:
    """Show those of the running jobs that somebody looks at. Raises BrokerUnavailable."""
    looked = looked_at(app, [job.claim.job_id for job in running])
    show(app, {job.claim.job_id: view(job) for job in running if job.claim.job_id in looked})


def view(job: Running) -> LiveView:
    """A job as it is now; the picture is made here and not by the device loop."""
    index, watch = job.index, job.watch
    done, total, picture = watch.done, watch.total, watch.preview()
    jpeg = None
    if picture is not None:
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=80)
        jpeg = data.getvalue()
    return LiveView(step=index, done=done, total=total, preview=jpeg)
