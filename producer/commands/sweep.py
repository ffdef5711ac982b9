"""`sweep`: the same job over several values, and a captioned grid of what came out."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from ulid import ULID

from producer.client import Client
from producer.commands.files import Force, require_free, save, write
from producer.commands.output import AsJson, as_json, print_json, say, warnings_as_lines, watch
from producer.commands.submit import Height, Negative, Priority, Prompt, Width
from producer.job import Job
from producer.sweep import Sweep, make_sweep
from storage.errors import InvalidSpec, JobFailed
from storage.jobs import State

Values = str | None


def sweep(
    image: Annotated[
        str | None,
        typer.Argument(help="The picture to begin from; without one, pictures from the prompt."),
    ] = None,
    *,
    prompt: Prompt,
    negative_prompt: Negative = "",
    model: Annotated[
        str, typer.Option("--model", "-m", help="Aliases of models.toml, between commas.")
    ] = "demo",
    strength: Annotated[
        Values, typer.Option("--strength", "-s", help="Values between commas: 0.4,0.6,1.0.")
    ] = None,
    guidance: Annotated[
        Values, typer.Option("--guidance", "-g", help="guidance_scale: 0.1,5,10.")
    ] = None,
    steps: Annotated[Values, typer.Option("--steps", help="num_inference_steps: 20,30,50.")] = None,
    seed: Annotated[
        Values, typer.Option("--seed", help="1,2,3. Default: one, drawn for all.")
    ] = None,
    scheduler: Annotated[
        Values, typer.Option("--scheduler", help="Class names between commas.")
    ] = None,
    width: Width = None,
    height: Height = None,
    priority: Priority = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder. Default: named as the batch.")
    ] = None,
    force: Force = False,
    as_lines: AsJson = False,
) -> None:
    """Make a picture for each combination of values, and a grid of them all.

    Strengths are its rows and guidances its columns. Of others the last that has several values
    has the columns, in the order: model, scheduler, seed, steps, strength, guidance.
    """
    texts: dict[str, tuple[Values, Callable[[str], Any]]] = {
        "model": (model, str),
        "scheduler": (scheduler, str),
        "seed": (seed, int),
        "num_inference_steps": (steps, int),
        "strength": (strength, float),
        "guidance_scale": (guidance, float),
    }
    values = {name: _list(name, text, kind) for name, (text, kind) in texts.items() if text}
    shared = {
        "prompt": prompt, "negative_prompt": negative_prompt, "width": width, "height": height,
    }  # fmt: skip
    made = make_sweep(values, shared, image)
    batch = f"sweep-{str(ULID()).lower()}"
    folder = output or Path(batch)
    _run(made, batch, folder, priority, force, as_lines)


def _run(made: Sweep, batch: str, folder: Path, priority: int, force: bool, as_lines: bool) -> None:
    names = [made.name(point) for point in made.points]
    grid = folder / "grid.png"
    for path in (grid, *(folder / f"{name}.png" for name in names)):
        require_free(path, force)
    with warnings_as_lines():
        jobs = list(Client().submit_many(made.requests(), batch=batch, priority=priority))
    files = {job.id: folder / f"{name}.png" for job, name in zip(jobs, names, strict=True)}
    pictures: dict[str, Image.Image] = {}

    def keep(job: Job) -> None:
        if job.state is State.SUCCEEDED:
            save(job, files[job.id])
            pictures[job.id] = job.image()
        if as_lines:
            file = str(files[job.id]) if job.id in pictures else None
            print_json({**as_json(job), "file": file})

    failure: JobFailed | None = None
    try:
        watch(jobs, quiet=as_lines, names=[made.caption(p) for p in made.points], on_end=keep)
    except JobFailed as error:
        failure = error
    if pictures:
        sheet = io.BytesIO()
        made.sheet([pictures.get(job.id) for job in jobs]).save(sheet, "PNG")
        write(grid, sheet.getvalue())
    if as_lines:
        print_json({"batch": batch, "grid": str(grid) if pictures else None, "jobs": len(jobs)})
    elif pictures:
        say(str(grid))
    if failure is not None:
        raise failure


def _list(name: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """The values between commas; raises InvalidSpec."""
    found = []
    for part in text.split(","):
        try:
            found.append(kind(part.strip()))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise InvalidSpec(f"{name}: {text!r} is no list of {what} between commas") from None
        if found[-1] == "":
            raise InvalidSpec(f"{name}: {text!r} has an empty value")
    return found
