"""`bench run`, `bench calibrate` and `bench simulate`: how fast this installation is, and why."""

import os
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, Any

import typer
from PIL import Image

from producer.client import Client
from producer.commands.output import AsJson, out, print_json
from producer.commands.services import require_worker
from producer.job import ENDED
from producer.request import Img2Img
from storage.errors import Unavailable
from storage.jobs import Selection, State, Worker

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

#: The worker's own command: it knows devices. -P: never the user's worker.py.
_COMMAND = (sys.executable, "-P", "-m", "worker.bench")
#: Its options are its own: whatever follows is passed on, --help too.
_PASSED_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}
#: Seconds between two looks at the workers, which report about as often.
LOOK = 0.5
#: Seconds without any job's end after which a run is given up.
STUCK = 300.0


@app.command()
def run(
    model: Annotated[str, typer.Option(help="An alias of models.toml.")] = "demo",
    jobs: Annotated[int, typer.Option(min=1, help="How many.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each job before strength.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Send jobs of mixed strengths through the running workers and say what came of them.

    The device's idle share is that of the time in which jobs were waiting for it.
    """
    client = Client()
    if not client.ledger.workers():
        raise Unavailable("no worker is running: start one with `latentmill up`")
    batch = f"bench-{time.time_ns()}"
    before = {worker.name: worker for worker in client.ledger.workers()}
    begun = time.monotonic()
    submitted = [job.id for job in client.submit_many(_requests(model, jobs, steps), batch=batch)]
    entered = time.monotonic() - begun
    looks = list(_looks(client, batch, len(submitted)))
    figures = {
        "jobs": len(submitted),
        "succeeded": looks[-1][1],
        "submit_seconds": round(entered, 3),
        "seconds": round(time.monotonic() - begun, 3),
        "images_per_second": round(looks[-1][1] / (time.monotonic() - begun), 3),
        **_device(before, [workers for waiting, _, workers in looks if waiting]),
    }
    if as_json:
        print_json(figures)
    else:
        for name, value in figures.items():
            out.print(f"{name:<24} {value}", highlight=False)
    if figures["succeeded"] != len(submitted):
        raise typer.Exit(1)


def _requests(model: str, jobs: int, steps: int) -> Iterator[Img2Img]:
    with files("producer").joinpath("samples", "cat-face.png").open("rb") as file:
        picture = Image.open(file)
        picture.load()
    for i in range(jobs):
        yield Img2Img(
            model=model, image=picture, prompt="cat face, comic style", seed=i,
            strength=0.2 + 0.8 * (i % 9) / 8, num_inference_steps=steps,
        )  # fmt: skip


def _looks(client: Client, batch: str, jobs: int) -> Iterator[tuple[bool, int, dict[str, Worker]]]:
    """Whether jobs wait for a slot, how many have succeeded, and the workers, until all ended."""
    last, since = -1, time.monotonic()
    while True:
        counts = client.ledger.counts(batch=batch)
        ended = sum(counts.get(state, 0) for state in ENDED)
        workers = {worker.name: worker for worker in client.ledger.workers()}
        waiting = counts.get(State.QUEUED, 0) > 0
        yield waiting, counts.get(State.SUCCEEDED, 0), workers
        if ended == jobs:
            return
        if ended != last:
            last, since = ended, time.monotonic()
        elif time.monotonic() - since > STUCK:
            client.ledger.cancel(Selection(batch=batch))
            raise Unavailable(f"no job ended for {STUCK:.0f} s; those that wait were canceled")
        time.sleep(LOOK)


def _device(before: dict[str, Worker], looks: list[dict[str, Worker]]) -> dict[str, Any]:
    """What the devices did between the first and the last look at which jobs waited."""
    first, last = looks[0] if looks else {}, looks[-1] if looks else {}
    sums: dict[str, float] = {}
    for name in first.keys() & last.keys() & before.keys():
        one, other = first[name].figures, last[name].figures
        for key in ("up_seconds", "idle_seconds"):
            sums[key] = sums.get(key, 0) + other.get(key, 0) - one.get(key, 0)
        for key in ("calls", "rows", "seconds"):
            total = sum(group[key] for group in other.get("steps", {}).values())
            total -= sum(group[key] for group in one.get("steps", {}).values())
            sums[f"step_{key}"] = sums.get(f"step_{key}", 0) + total
    if not sums.get("up_seconds") or not sums["step_calls"]:
        return {"device": "the jobs were too few to measure it"}
    return {
        "device_idle_share": round(sums["idle_seconds"] / sums["up_seconds"], 4),
        "rows_per_call": round(sums["step_rows"] / sums["step_calls"], 2),
        "ms_per_row_step": round(1000 * sums["step_seconds"] / sums["step_rows"], 2),
    }


@app.command(context_settings=_PASSED_ON)
def calibrate(context: typer.Context) -> None:
    """Measure how many rows of a model this device takes at once: see `--help`."""
    require_worker()
    os.execv(sys.executable, [*_COMMAND, "calibrate", *context.args])


@app.command(context_settings=_PASSED_ON)
def simulate(context: typer.Context) -> None:
    """Replay a trace of arrivals on measured times: see `--help`."""
    require_worker()
    os.execv(sys.executable, [*_COMMAND, "simulate", *context.args])
