"""What commands print: tables and bars for people, JSON for programs."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from producer.description import describe
from producer.job import Job
from storage.errors import JobFailed, LatentmillError
from storage.jobs import State

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(line: str, quiet: bool = False) -> None:
    """A line for people, whole whatever the terminal's width."""
    if not quiet:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def state_of(job: Job) -> str:
    """Its state, with what is still to be said about it."""
    record = job.record
    if record.cancel_requested and not job.ended:
        return f"{job.state} (to be canceled)"
    code = record.error_code
    return f"{job.state} ({code})" if code and code != job.state else str(job.state)


def as_json(job: Job) -> dict[str, Any]:
    """All that is known about a job, under stable names."""
    return describe(job.record)


def watch(
    jobs: Sequence[Job],
    *,
    quiet: bool,
    names: Sequence[str] | None = None,
    timeout: float | None = None,
    on_end: Callable[[Job], None] | None = None,
) -> None:
    """Wait for jobs, with a bar each unless quiet; `on_end` is called with each, in their order.

    Bars are named by the ends of the jobs' ids, or by `names`. Raises the JobFailed of the first
    that failed, once all have ended, and TimeoutError after `timeout` seconds for all of them.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    failures: list[JobFailed] = []
    with _bars(quiet) as bars, interruptible(jobs):
        shown = names or [job.id[-8:] for job in jobs]
        rows = [bars.add_task(name, total=None, what="queued") for name in shown]
        for job, row in zip(jobs, rows, strict=True):

            def show(seen: Job, row: TaskID = row) -> None:
                _show(bars, row, seen)
                # The other bars go on while this one's job is waited for.
                for other, other_row in zip(jobs, rows, strict=True):
                    if other is not seen and not other.ended and not quiet:
                        _show(bars, other_row, other.refresh())

            try:
                job.wait(None if deadline is None else deadline - time.monotonic(), show)
            except JobFailed as error:
                failures.append(error)
            _show(bars, row, job)
            if on_end is not None:
                on_end(job)
    for job in jobs:
        for text in job.warnings:
            err.print(f"job {job.id}: warning: {text}", markup=False, soft_wrap=True)
    raise_first(failures)


def raise_first(errors: Sequence[LatentmillError]) -> None:
    """Raise the first error, if there is one, and print the others."""
    for error in errors[1:]:
        err.print(f"latentmill: {error}", markup=False, highlight=False, soft_wrap=True)
    if errors:
        raise errors[0]


@contextmanager
def interruptible(jobs: Sequence[Job]) -> Iterator[None]:
    """Ctrl-C ends the watching, never the jobs; say so."""
    try:
        yield
    except KeyboardInterrupt:
        ids = " ".join(job.id for job in jobs)
        text = f"\nThe work goes on. Watch it again with: latentmill wait {ids}"
        err.print(text, highlight=False, soft_wrap=True)
        sys.exit(130)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Warnings of the client as one line each on standard error."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        err.print(f"latentmill: warning: {message}", markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _bars(quiet: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", style="cyan"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[what]}"),
        TimeRemainingColumn(compact=True),
        console=err,
        disable=quiet,
        refresh_per_second=4,
    )


def _show(bars: Progress, row: TaskID, job: Job) -> None:
    record = job.record
    steps = len(record.spec.steps) if record.spec else 1
    if record.state is not State.RUNNING:
        ended = {"total": 1, "completed": 1} if job.ended else {}
        bars.update(row, what=str(record.state), **ended)  # type: ignore[arg-type]
        return
    step = min(record.step + 1, steps)
    where = f"step {step} of {steps}: " if steps > 1 else ""
    if not record.progress_total:
        bars.update(row, what=f"{where}preparing", total=None)
        return
    # Every step of a chain counts the same, whatever its number of denoise steps.
    whole = record.step + record.progress_done / record.progress_total
    what = f"{where}{record.progress_done}/{record.progress_total}"
    bars.update(row, what=what, total=steps, completed=whole)
