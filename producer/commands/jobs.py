"""`jobs`, `show`, `wait` and `fetch`: look at jobs, and get their pictures."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from producer.client import Client
from producer.commands.files import Force, require_free, save
from producer.commands.output import (
    AsJson,
    as_json,
    err,
    out,
    print_json,
    raise_first,
    say,
    watch,
    when,
)
from producer.commands.submit import labels
from producer.job import Job
from storage.errors import InvalidSpec, JobFailed, LatentmillError, NotFound
from storage.jobs import State

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or the beginning of it.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or beginnings of them.")]


def jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="With name=value.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    before: Annotated[str | None, typer.Option(help="Only older than this id.")] = None,
    as_lines: AsJson = False,
) -> None:
    """List jobs, newest first."""
    pair = next(iter(labels([label]).items())) if label else None
    found = Client().jobs(state=state, label=pair, limit=limit, before=before)
    if as_lines:
        for job in found:
            print_json(as_json(job))
        return
    # On a narrow terminal the prompt gives way, never the id: other commands take it.
    fixed = {"id": 26, "state": 9, "step": 4, "model": 4, "created (UTC)": 16}
    columns = [Column(name, no_wrap=True, min_width=width) for name, width in fixed.items()]
    table = Table(*columns, Column("prompt", no_wrap=True, ratio=1), box=None, expand=True)
    for job in found:
        record = job.record
        last = record.spec.steps[-1]
        table.add_row(
            job.id, _state(job), f"{len(record.steps)}/{len(record.spec.steps)}", last.model,
            (when(record.created_at) or "")[:16].replace("T", " "), _short(last.prompt),
        )  # fmt: skip
    out.print(table, markup=False)


def show(job_id: JobId, as_lines: AsJson = False) -> None:
    """Show all that is known about a job: its steps, and every attempt with its error."""
    job = Client().job(job_id)
    if as_lines:
        print_json(as_json(job))
        return
    record = job.record
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("job", job.id),
        ("state", _state(job)),
        ("error", record.error),
        ("result", record.artifact),
        ("attempts", f"{record.charged} of {record.max_attempts}"),
        ("worker", record.worker),
        ("created", when(record.created_at)),
        ("finished", when(record.finished_at)),
        ("labels", ", ".join(f"{k}={v}" for k, v in record.spec.labels.items())),
    ):
        if value:
            facts.add_row(name, str(value))
    out.print(facts, markup=False)
    for index, step in enumerate(record.spec.steps):
        done = next((s for s in record.steps if s.index == index), None)
        out.print(f"\nstep {index + 1} of {len(record.spec.steps)}: {step.kind}", style="bold")
        details = Table.grid(padding=(0, 2))
        values = step.model_dump(exclude={"kind"}, exclude_none=True)
        values |= {"artifact": done.artifact, **done.details} if done else {}
        for name, value in values.items():
            if value not in (None, "", []):
                details.add_row(f"  {name}", str(value))
        out.print(details, markup=False)
    if any(attempt.error for attempt in record.attempts):
        out.print("\nattempts", style="bold")
        for attempt in record.attempts:
            end = f"{attempt.error_code}: {attempt.error}" if attempt.error else "no error"
            out.print(f"  {attempt.number}  {attempt.worker}  {end}", markup=False)


def wait(
    job_ids: JobIds,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds; then leave with status 1.")
    ] = None,
    as_lines: AsJson = False,
) -> None:
    """Wait until jobs have ended, with a progress bar each."""
    client = Client()
    found = [client.job(job_id) for job_id in job_ids]
    on_end = (lambda job: print_json(as_json(job))) if as_lines else None
    try:
        watch(found, quiet=as_lines, timeout=timeout, on_end=on_end)
    except TimeoutError:
        left = " ".join(job.id for job in found if not job.ended)
        err.print(f"latentmill: not ended after {timeout:g} s: {left}", soft_wrap=True)
        raise typer.Exit(1) from None


def fetch(
    job_ids: JobIds,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder; or a file, for one picture.")
    ] = Path(),
    all_steps: Annotated[
        bool, typer.Option("--all-steps", help="The kept pictures of every step.")
    ] = False,
    force: Force = False,
    as_lines: AsJson = False,
) -> None:
    """Download the pictures of jobs; those that have none do not keep the others back."""
    client = Client()
    wanted: list[tuple[Job, int | None, Path]] = []
    errors: list[LatentmillError] = []
    for job in [client.job(job_id) for job_id in job_ids]:
        try:
            wanted += [(job, step, Path(name)) for step, name in _pictures(job, all_steps)]
        except (JobFailed, NotFound) as error:
            errors.append(error)
    if not output.suffix or output.is_dir():
        wanted = [(job, step, output / name) for job, step, name in wanted]
    elif len(wanted) > 1:
        raise InvalidSpec(f"output: {str(output)!r} is one file for {len(wanted)} pictures")
    else:
        wanted = [(job, step, output) for job, step, _ in wanted]
    for _, _, path in wanted:
        require_free(path, force)
    for job, step, path in wanted:
        save(job, path, step)
        if as_lines:
            print_json({"id": job.id, "step": step, "file": str(path)})
        else:
            say(str(path))
    raise_first(errors)


def _pictures(job: Job, all_steps: bool) -> list[tuple[int | None, str]]:
    """Steps (None: the last) and file names of a job's pictures; raises JobFailed or NotFound."""
    if not job.check().ended:
        raise NotFound(f"job {job.id} has no picture yet: it is {job.state}")
    if not all_steps:
        return [(None, f"{job.id}.png")]
    return [(index, f"{job.id}-step-{index}.png") for index, _ in job.artifacts()]


def _state(job: Job) -> str:
    code = job.record.error_code
    return f"{job.state} ({code})" if code else str(job.state)


def _short(text: str, length: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
