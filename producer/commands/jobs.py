"""`jobs`, `wait` and `fetch`: find jobs, and get their pictures."""

import io
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.table import Column, Table

from producer.client import Client
from producer.commands.files import Force, require_free, save, write
from producer.commands.output import (
    AsJson,
    as_json,
    err,
    out,
    print_json,
    raise_first,
    say,
    state_of,
    watch,
)
from producer.commands.submit import labels
from producer.description import when
from producer.grid import make_gif, make_grid
from producer.job import Job
from storage.errors import InvalidSpec, JobFailed, LatentmillError, NotFound
from storage.jobs import State

JobIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or beginnings of them.")]


def jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="With name=value.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only jobs of this batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    before: Annotated[str | None, typer.Option(help="Only older than this id.")] = None,
    as_lines: AsJson = False,
) -> None:
    """List jobs, newest first."""
    pair = next(iter(labels([label]).items())) if label else None
    found = Client().jobs(state=state, label=pair, batch=batch, limit=limit, before=before)
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
        created = (when(record.created_at) or "")[:16].replace("T", " ")
        if record.spec is None:
            table.add_row(job.id, state_of(job), "", "", created, f"? {record.unreadable}")
            continue
        last = record.spec.steps[-1]
        table.add_row(
            job.id, state_of(job), f"{len(record.steps)}/{len(record.spec.steps)}", last.model,
            created, _short(last.prompt),
        )  # fmt: skip
    out.print(table, markup=False)


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
    grid: Annotated[
        bool,
        typer.Option(
            "--grid",
            help="One picture of it all: inputs and kept steps, a row for each job; with -o"
            " NAME.gif they follow each other.",
        ),
    ] = False,
    force: Force = False,
    as_lines: AsJson = False,
) -> None:
    """Download the pictures of jobs; those that have none do not keep the others back."""
    client = Client()
    if grid:
        path = fetch_grid([client.job(job_id).check() for job_id in job_ids], output, force)
        if as_lines:
            print_json({"ids": job_ids, "file": str(path)})
        else:
            say(str(path))
        return
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


def fetch_grid(jobs: list[Job], output: Path, force: bool) -> Path:
    """Write what jobs began from and what they made into one picture; raises NotFound."""
    for job in jobs:
        if not job.ended:
            raise NotFound(f"job {job.id} has no picture yet: it is {job.state}")
    path = output if output.suffix and not output.is_dir() else output / f"{jobs[0].id}-grid.png"
    if path.suffix.lower() not in (".png", ".gif"):
        raise InvalidSpec(f"output: {str(path)!r}: a grid is a .png or a .gif")
    require_free(path, force)
    rows = [job.story() for job in jobs]
    if path.suffix.lower() == ".gif":
        data = make_gif([picture for row in rows for picture, _ in row])
    else:
        columns = max(len(row) for row in rows)
        blank = Image.new("RGB", (1, 1), "white"), ""
        cells = [cell for row in rows for cell in [*row, *[blank] * (columns - len(row))]]
        sheet = io.BytesIO()
        pictures, captions = zip(*cells, strict=True)
        make_grid(pictures, captions, columns).save(sheet, "PNG")
        data = sheet.getvalue()
    return write(path, data)


def _pictures(job: Job, all_steps: bool) -> list[tuple[int | None, str]]:
    """Steps (None: the last) and file names of a job's pictures; raises JobFailed or NotFound."""
    if not job.check().ended:
        raise NotFound(f"job {job.id} has no picture yet: it is {job.state}")
    if not all_steps:
        return [(None, f"{job.id}.png")]
    return [(index, f"{job.id}-step-{index}.png") for index, _ in job.artifacts()]


def _short(text: str, length: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
